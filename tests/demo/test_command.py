"""`swaa-convert demo`, at a tiny size."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from swaa_convert.demo.recipes import Settings, contenders
from tests.support.command import refused, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    sizes = ("--length", "256", "--samples", "4", "--window", "32")
    return run("demo", *sizes, "--json", folder / "demo.json", "--png", folder / "demo.png")


@pytest.fixture(scope="module")
def found(result: Result, folder: Path) -> dict[str, Any]:
    rows = json.loads((folder / "demo.json").read_text())["recipes"]
    return {row["name"]: row for row in rows}


def test_a_row_for_every_recipe(result: Result) -> None:
    assert result.exit_code == 0, result.output
    for contender in contenders(Settings()):
        assert f"\n{contender.name} " in result.stdout


def test_full_attention_is_right_and_the_naive_window_is_not(found: dict[str, Any]) -> None:
    full, naive = found["full attention"], found["window alone (naive)"]
    assert (full["direct"], full["thinking"], full["attention_work"]) == (1, 1, 1)
    assert naive["direct"] < 1 and naive["thinking"] < 1


def test_the_combination_brings_back_every_answer(found: dict[str, Any]) -> None:
    combined = found["FA decode + sinks + tail + odd"]
    assert (combined["direct"], combined["thinking"]) == (1, 1)
    assert 0.5 < combined["attention_work"] < 0.8


def test_picture(result: Result, folder: Path) -> None:
    assert (folder / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'swaa-convert[plots]'" in refused("demo", "--png", tmp_path / "demo.png")


@pytest.mark.parametrize("option", ["--json", "--png"])
def test_without_its_folder_nothing_is_measured(option: str, tmp_path: Path) -> None:
    assert refused("demo", option, tmp_path / "no/folder").startswith(f"{tmp_path}/no/folder: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [("--length", "50"), ("--length", "9000"), ("--samples", "0"), ("--window", "0")])
def test_sizes_that_make_no_sense(wrong: tuple[str, str]) -> None:
    assert wrong[0] in refused("demo", *wrong, code=2)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert "config.json" in refused("demo", "--checkpoint", tmp_path)


def test_recipes_have_names_and_folders_of_their_own() -> None:
    rivals = contenders(Settings())
    assert len({rival.name for rival in rivals}) == len({rival.folder for rival in rivals}) == len(rivals)
