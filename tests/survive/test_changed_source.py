"""Weights that are written anew while they are converted: one line, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import swaa_convert.convert
from tests.support.adapters import make_adapter
from tests.support.command import refused
from tests.support.sources import make_source

SINGLE = "model.safetensors"


def shifted(path: Path) -> None:
    """Other bytes in the tensors' places, in a file that is as large as before."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + data[len(data) // 2 :][::-1])


def replaced(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(path.read_bytes()[::-1])
    new.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written anew": shifted,
    "replaced": replaced,
    "cut": lambda path: os.truncate(path, 999),
    "removed": Path.unlink,
}
WAYS: dict[str, tuple[str, ...]] = {
    "copied": (),
    "cut anew": ("--max-shard-size", "100kB"),
    "merged": ("--lora", "adapter"),
    "linked": ("--link",),
}


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen once everything is planned."""

    def when_planned(change: Callable[[], object]) -> None:
        build = swaa_convert.convert.build

        def changed(*arguments: Any, **options: Any) -> None:
            change()
            build(*arguments, **options)

        monkeypatch.setattr(swaa_convert.convert, "build", changed)

    return when_planned


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_a_source_that_changes(
    way: str, change: str, tmp_path: Path, changes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = make_source(tmp_path / "source")
    make_adapter(source, tmp_path / "adapter")
    changes(lambda: CHANGES[change](source / SINGLE))
    said = refused(source, "--out", tmp_path / "out", "-q", *WAYS[way])
    assert said == (
        f"source: {SINGLE} was changed while it was converted: wait until nothing writes to it, and convert again"
    )
    assert sorted(os.listdir(tmp_path)) == ["adapter", "source"]


def test_an_adapter_that_changes(tmp_path: Path, changes: Callable[..., None]) -> None:
    source = make_source(tmp_path / "source")
    weights = make_adapter(source, tmp_path / "adapter") / "adapter_model.safetensors"
    changes(lambda: os.utime(weights, (1, 1)))
    said = refused(source, "--lora", tmp_path / "adapter", "--out", tmp_path / "out", "-q")
    assert said.startswith("adapter: adapter_model.safetensors was changed while it was converted: wait")
    assert sorted(os.listdir(tmp_path)) == ["adapter", "source"]
