"""What killed runs left is swept, what a live run works in is not, nor anything that is not ours."""

import os
from pathlib import Path

import pytest

import swaa_convert.leftovers
from swaa_convert.convert import convert_checkpoint
from swaa_convert.leftovers import claimed, moved_aside, sweep
from swaa_convert.recipe import Recipe
from swaa_convert.resume import FILE, Finished, Journal, finished_bytes
from swaa_convert.staging import staged
from tests.support.command import refused, tree


def dead(target: Path) -> Path:
    """The folder of a run that was killed."""
    stage = target.with_name(f".{target.name}.swaa-abcd_123")
    stage.mkdir()
    (stage / "config.json").write_text("half")
    stage.with_name(f"{stage.name}.lock").touch()
    return stage


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_dead_runs_folder_is_removed(tmp_path: Path) -> None:
    dead(tmp_path / "out")
    sweep(tmp_path / "out")
    assert names(tmp_path) == []


def test_a_live_runs_folder_stays(tmp_path: Path) -> None:
    with claimed(tmp_path / "out") as stage:
        (stage / "config.json").write_text("half")
        sweep(tmp_path / "out")
        assert (stage / "config.json").read_text() == "half"
        stage.rename(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_what_a_live_run_has_finished_is_not_there_to_resume(tmp_path: Path) -> None:
    journal = Journal(dead(tmp_path / "out"), "key")
    journal.begin({"a.safetensors": Finished(3, "")})
    with claimed(tmp_path / "out") as stage:
        Journal(stage, "key").begin({"a.safetensors": Finished(5, "")})
        os.utime(stage / FILE, (2**33, 2**33))
        assert finished_bytes(tmp_path / "out") == 3
    assert finished_bytes(tmp_path / "out") == 5


def test_another_targets_leftovers_stay(tmp_path: Path) -> None:
    for name in ("out2", "out.swaa-x", "xout", ".out"):
        dead(tmp_path / name)
    before = names(tmp_path)
    sweep(tmp_path / "out")
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    "name", [".out.swaa-abcd_123", ".out.swaa-abc.lock", ".out.swaa-abcd_123.lock.bak", "out.lock"]
)
def test_what_is_not_marked_as_ours_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    sweep(tmp_path / "out")
    assert names(tmp_path) == [name]


def test_a_repo_that_was_moved_aside_goes_back(tmp_path: Path) -> None:
    old = moved_aside(dead(tmp_path / "out"))
    old.mkdir()
    (old / "config.json").write_text("old")
    sweep(tmp_path / "out")
    assert names(tmp_path) == ["out"] and (tmp_path / "out/config.json").read_text() == "old"


def test_a_replaced_repo_does_not_come_back(tmp_path: Path) -> None:
    moved_aside(dead(tmp_path / "out")).mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.json").write_text("new")
    sweep(tmp_path / "out")
    assert names(tmp_path) == ["out"] and (tmp_path / "out/config.json").read_text() == "new"


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("x")
    (tmp_path / ".out.swaa-abcd_123").symlink_to("mine")
    (tmp_path / ".out.swaa-abcd_123.lock").touch()
    sweep(tmp_path / "out")
    assert (tmp_path / "mine/thesis").read_text() == "x"


def test_without_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path / "out")
    monkeypatch.setattr(swaa_convert.leftovers, "fcntl", None)
    with staged(tmp_path / "out") as stage:
        (stage / "config.json").write_text("new")
    assert names(tmp_path) == [".out.swaa-abcd_123", ".out.swaa-abcd_123.lock", "out"]


def test_the_next_run_sweeps(source: Path, tmp_path: Path) -> None:
    dead(tmp_path / "out")
    convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    assert names(tmp_path) == ["out", "source"]


def test_a_dry_run_touches_nothing(source: Path, tmp_path: Path) -> None:
    dead(tmp_path / "out")
    before = names(tmp_path), tree(tmp_path)
    convert_checkpoint(source, tmp_path / "out", Recipe(), dry_run=True)
    assert (names(tmp_path), tree(tmp_path)) == before


def test_a_moved_aside_repo_is_not_replaced_unasked(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    before = tree(repo)
    repo.rename(moved_aside(dead(tmp_path / "out")))
    assert "exists already" in refused(source, "--out", tmp_path / "out", "-q")
    assert tree(tmp_path / "out") == before and names(tmp_path) == ["out", "source"]
