"""The output appears whole or not at all, whatever goes wrong on the way."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import swaa_convert.convert
import swaa_convert.staging
from swaa_convert.convert import convert_checkpoint
from swaa_convert.errors import SwaaError
from swaa_convert.recipe import Recipe
from tests.support.command import refused, run, tree

STEPS = ["copy_file", "write_file", "render_card", "dump_recipe", "_check"]


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_leaves_nothing(
    step: str, error: BaseException, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(tmp_path)
    monkeypatch.setattr(swaa_convert.convert, step, failing(error))
    with pytest.raises(type(error)):
        convert_checkpoint(source, tmp_path / "deep/er/out", Recipe())
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_leaves_the_old_one(step: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    before = tree(tmp_path)
    monkeypatch.setattr(swaa_convert.convert, step, failing(RuntimeError("bug")))
    with pytest.raises(RuntimeError):
        convert_checkpoint(source, tmp_path / "out", Recipe(window=1), force=True)
    assert tree(tmp_path) == before


def test_a_failed_swap_leaves_the_old_one(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    before, rename = tree(tmp_path), Path.rename

    def fail_into_place(path: Path, target: Path) -> Path:
        if target == tmp_path / "out" and not path.name.endswith(".old"):
            raise OSError(errno.EIO, "disk on fire", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    monkeypatch.setattr(swaa_convert.staging, "exchange", lambda one, other: False)
    with pytest.raises(SwaaError, match="disk on fire"):
        convert_checkpoint(source, tmp_path / "out", Recipe(window=1), force=True, check=False)
    assert tree(tmp_path) == before


def test_force_replaces_a_converted_repo(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    (tmp_path / "out/stale.txt").write_text("old")
    assert "exists already" in refused(source, "--out", tmp_path / "out", "-q")
    assert run(source, "--out", tmp_path / "out", "-q", "--force", "--window", "5").exit_code == 0
    assert "stale.txt" not in tree(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("content", [{}, {"config.json": "{}"}, {"config.json": "["}, {"thesis.tex": "x"}])
def test_force_never_removes_anything_else(content: dict[str, str], source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name, text in content.items():
        (tmp_path / "out" / name).write_text(text)
    before = tree(tmp_path)
    assert "is not a converted repo" in refused(source, "--out", tmp_path / "out", "-q", "--force")
    assert tree(tmp_path) == before


def test_what_another_run_wrote_meanwhile_stays(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(stage: Path) -> str:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/config.json").write_text("another's")
        return ""

    monkeypatch.setattr(swaa_convert.convert, "_check", other)
    assert "appeared meanwhile" in refused(source, "--out", tmp_path / "out", "-q")
    assert tree(tmp_path / "out") == {"config.json": b"another's"}


def test_target_is_a_file(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert "is not a converted repo" in refused(source, "--out", tmp_path / "out", "-q", "--force")


def test_target_is_a_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert "is a link" in refused(source, "--out", tmp_path / "out", "-q", "--force")


@pytest.mark.parametrize(
    ("out", "said"),
    [("source", "exists already"), ("source/out", "lies inside the source"), ("source/a/b", "lies inside the source")],
)
def test_target_in_the_source(out: str, said: str, source: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    assert said in refused(source, "--out", tmp_path / out, "-q")
    assert tree(tmp_path) == before


def test_source_in_the_target(source: Path, tmp_path: Path) -> None:
    out = convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    source.rename(out / "source")
    assert "the source lies inside --out" in refused(out / "source", "--out", out, "--force", "-q")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_systems_errors_are_one_line(
    number: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(number, os.strerror(number), "shard")
    monkeypatch.setattr(swaa_convert.convert, "copy_file", failing(error))
    said = refused(source, "--out", tmp_path / "out", "-q")
    assert said.startswith(f"shard: {os.strerror(number)}: nothing was written: ")


def test_linking_across_file_systems(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(OSError(errno.EXDEV, "Invalid cross-device link")))
    assert "drop --link to copy" in refused(source, "--out", tmp_path / "out", "-q", "--link")
    assert not (tmp_path / "out").exists()


def test_without_kernel_copies(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(OSError(errno.EXDEV, "no")), raising=False)
    repo = convert_checkpoint(source, tmp_path / "out", Recipe(), check=False)
    assert (repo / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted(number: int, code: int, source: Path, tmp_path: Path) -> None:
    script = (
        # As at a terminal: what runs the tests in the background, nohup too, may have told them to ignore these.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "import os, sys, swaa_convert.convert as c; from swaa_convert.cli import main\n"
        f"c.render_card = lambda **_: os.kill(os.getpid(), {int(number)})\n"
        "sys.argv = ['swaa-convert', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", script, str(source), "--out", str(tmp_path / "out"), "-q"]
    assert subprocess.run(command, capture_output=True).returncode == code
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
