"""Downloads that break off or are interrupted: one line, and the target is not begun."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swaa_convert.errors import SwaaError
from swaa_convert.hub import hub_errors
from swaa_convert.interruptible import interruptible
from tests.support.fake_hub import FakeHub, serve
from tests.support.sources import make_source

SHARD = "model-00002-of-00002.safetensors"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    source = make_source(tmp_path / "remote", "qwen3", shards=2)
    with serve(FakeHub({"org/name": source}, breaks=(SHARD,))) as served:
        yield served
        served.released.set()


def test_broken_off(hub: FakeHub, tmp_path: Path) -> None:
    hub.released.set()
    result = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "deep/out", "-q")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert result.stderr.startswith("Error: org/name: the download broke off (")
    assert result.stderr.endswith("run the command again, it resumes\n")
    assert sorted(os.listdir(tmp_path)) == ["home", "remote"]


def test_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.released.set()
    hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "-q")
    hub.breaks = ("nothing",)
    result = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "-q")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "out" / SHARD).read_bytes() == (tmp_path / "remote" / SHARD).read_bytes()


def test_interrupted_while_the_hub_is_silent(hub: FakeHub, tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys; from swaa_convert.cli import main; sys.argv = ['swaa-convert', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", script, "org/name", "--out", str(tmp_path / "deep/out"), "-q"]
    process = subprocess.Popen(command, env=hub.environment(tmp_path / "home"), stderr=subprocess.PIPE, text=True)
    while process.poll() is None and SHARD not in hub.downloaded():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    # The Hub still holds the connection open.
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors, hub.released.is_set()) == (130, "Interrupted.\n", False)
    assert sorted(os.listdir(tmp_path)) == ["home", "remote"]


def test_fewer_bytes_than_were_announced() -> None:
    with pytest.raises(SwaaError, match="org/name: Consistency check failed: run the command again"):
        with hub_errors("org/name", None):
            raise OSError("Consistency check failed\nThis is usually due to network issues")


def test_a_full_disk_is_the_systems_matter() -> None:
    with pytest.raises(OSError, match="No space left"), hub_errors("org/name", None):
        raise OSError(28, "No space left on device")


def test_what_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)
