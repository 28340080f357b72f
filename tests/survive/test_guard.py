"""No traceback, and no end of the work because nobody reads its output."""

import subprocess
import sys
from pathlib import Path

import pytest

import swaa_convert.convert
from tests.support.command import refused, run, tree


def raising(error: Exception) -> object:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def test_an_unexpected_error_asks_for_a_report(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_convert.convert, "make_plan", raising(KeyError("widow\nspider")))
    said = refused(source, "--out", tmp_path / "out", "-q")
    assert said.startswith("unexpected KeyError ('widow\\nspider'): this is a bug in swaa-convert; please report it")
    assert said.endswith("SWAA_TRACEBACK=1")


def test_the_traceback_is_there_for_the_report(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAA_TRACEBACK", "1")
    monkeypatch.setattr(swaa_convert.convert, "make_plan", raising(KeyError("widow")))
    assert isinstance(run(source, "--out", tmp_path / "out", "-q").exception, KeyError)


def test_out_of_memory(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_convert.convert, "make_plan", raising(MemoryError()))
    assert refused(source, "--out", tmp_path / "out", "-q").startswith("out of memory")


def test_errors_of_the_system_outside_a_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swaa_convert.inspect.repo.open_source", raising(PermissionError(13, "No", "config.json")))
    assert refused("inspect", tmp_path) == "config.json: No: ask for access, or choose another folder"


def piped(*args: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line with a standard output that nobody reads any more."""
    command = [sys.executable, "-m", "swaa_convert", *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    return subprocess.CompletedProcess(command, process.wait(), b"", errors)


def test_a_conversion_outlives_its_reader(source: Path, tmp_path: Path) -> None:
    result = piped(source, "--out", tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, b"")
    assert run(source, "--out", tmp_path / "other", "-q").exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "other")


def test_a_table_outlives_its_reader() -> None:
    result = piped("recipes")
    assert (result.returncode, result.stderr) == (0, b"")
