"""Large files are hashed while they are written, past the page cache or not, and hold what they were given."""

import errno
import fcntl
import hashlib
import os
import threading
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from swaa_convert import hashed_file as module
from swaa_convert.errors import SwaaError
from swaa_convert.hashed_file import hashed_file

BLOCK = 1 << 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", BLOCK)


def written(path: Path, data: bytes, piece: int = 50_000) -> str:
    """The hash of `data`, written half from memory and half from a file."""
    half, told = len(data) // 2, []
    source = path.with_suffix(".source")
    source.write_bytes(data)
    with source.open("rb", buffering=0) as reader, hashed_file(path, told.append) as file:
        for start in range(0, half, piece):
            file.write(memoryview(data)[start : min(start + piece, half)])
        file.copy(reader, half, len(data) - half)
    assert sum(told) == len(data)
    return file.sha256


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 4097])
@pytest.mark.parametrize("direct", [True, False])
def test_what_is_given_is_what_stands_there(
    size: int, direct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not direct:
        monkeypatch.setattr(module, "_DIRECT", 0)
    data = os.urandom(size)
    assert written(tmp_path / "file", data) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "file").read_bytes() == data


class Picky(FileIO):
    """A file that takes nothing past the page cache."""

    def write(self, data: Any) -> int:
        if fcntl.fcntl(self.fileno(), fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return super().write(data)


class Short(FileIO):
    """A file that takes little at a time."""

    def write(self, data: Any) -> int:
        return super().write(data[:1000])


@pytest.mark.parametrize("kind", [Picky, Short])
def test_files_that_do_not_take_everything(kind: type[FileIO], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode, **k: kind(path, mode) if "x" in mode else opened(path, mode, **k)
    )
    data = os.urandom(3 * BLOCK)
    assert written(tmp_path / "file", data) == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "file").read_bytes() == data


def test_a_source_that_ends_too_soon(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc")
    with (tmp_path / "source").open("rb", buffering=0) as reader, pytest.raises(SwaaError, match="ended while"):
        with hashed_file(tmp_path / "file", lambda count: None) as file:
            file.copy(reader, 0, 4)


def test_who_gives_up_leaves_no_thread(tmp_path: Path) -> None:
    def given_up(count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError), hashed_file(tmp_path / "file", given_up) as file:
        file.write(memoryview(bytes(9 * BLOCK)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("block")]
