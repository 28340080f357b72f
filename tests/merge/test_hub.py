"""An adapter on the Hub, with the real client against a local server: pinned to a commit, and found again by it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.merge.conftest import Make
from tests.support.command import tree
from tests.support.fake_hub import COMMIT, FakeHub, serve


@pytest.fixture
def hub(source_of: Make, adapter_of: Make, tmp_path: Path) -> Iterator[FakeHub]:
    source = source_of()
    shutil.copytree(source, tmp_path / "model")
    shutil.copytree(adapter_of(source), tmp_path / "lora")
    (tmp_path / "lora/optimizer.pt").write_text("unneeded")
    with serve(FakeHub({"org/model": tmp_path / "model", "org/lora": tmp_path / "lora"})) as served:
        yield served


def test_pinned_and_made_again(hub: FakeHub, tmp_path: Path) -> None:
    args = ("org/model", "--lora", "org/lora", "--lora-revision", "main", "--out", tmp_path / "one")
    result = hub.convert(tmp_path / "home", *args)
    assert result.returncode == 0, result.stderr
    assert f"Merge    org/lora at {COMMIT} (LoRA, rank 4)" in result.stdout
    assert "optimizer.pt" not in hub.downloaded()
    recipe = tmp_path / "one/swaa_recipe.yaml"
    assert yaml.safe_load(recipe.read_text())["lora"] == [{"id": "org/lora", "revision": COMMIT}]
    again = hub.convert(tmp_path / "home", "org/model", "--recipe", recipe, "--out", tmp_path / "two", "-q")
    assert again.returncode == 0, again.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_offline(hub: FakeHub, tmp_path: Path) -> None:
    args = ("org/model", "--lora", "org/lora", "-q", "--out")
    hub.convert(tmp_path / "home", *args, tmp_path / "one")
    again = hub.convert(tmp_path / "home", *args, tmp_path / "two", offline=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_dry_run_downloads_no_weights(hub: FakeHub, tmp_path: Path) -> None:
    result = hub.convert(tmp_path / "home", "org/model", "--lora", "org/lora", "--out", tmp_path / "o", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert not [name for name in hub.downloaded() if name.endswith(".safetensors")]


def test_no_such_adapter(hub: FakeHub, tmp_path: Path) -> None:
    result = hub.convert(tmp_path / "home", "org/model", "--lora", "org/none", "--out", tmp_path / "o", "-q")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1) and "no Hub model org/none" in result.stderr
