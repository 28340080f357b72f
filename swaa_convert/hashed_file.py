"""A new large file that is hashed while it is written, and written past the page cache where that can be done.

What goes through the page cache is copied once more, is read back to be hashed, and pushes out what the source
has there. Blocks that are hashed where they lie and written from there leave the processor to the arithmetic.
"""

import contextlib
import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.system_errors import naming

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

# Two such blocks per file: one is filled while the other is hashed and written.
_BLOCK = 8 * 1024**2
_DIRECT = getattr(os, "O_DIRECT", 0)


@contextlib.contextmanager
def hashed_file(path: Path, advance: Advance) -> Iterator["HashedFile"]:
    """The new file `path`, whose `sha256` is known after the block; `advance` is told what is hashed and written."""
    with path.open("xb", buffering=0) as file, ThreadPoolExecutor(2, thread_name_prefix="block") as helpers:
        _set_direct(file, on=True)
        writer = HashedFile(file, helpers, advance)
        yield writer
        writer.finish()


class HashedFile:
    """Takes the bytes of a file in their order, from one thread."""

    def __init__(self, file: FileIO, helpers: ThreadPoolExecutor, advance: Advance) -> None:
        self._file, self._helpers, self._advance = file, helpers, advance
        # Memory of the system's own begins at a page, as writing past the page cache demands.
        self._filling, self._other = (memoryview(mmap.mmap(-1, _BLOCK)) for _ in range(2))
        self._filled = 0
        self._on_its_way: list[Future[None]] = []
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash of everything, once the file is finished."""
        return self._digest.hexdigest()

    def write(self, data: memoryview) -> None:
        """Append bytes, which may change afterwards."""
        while data:
            count = min(len(data), len(self._room))
            self._room[:count] = data[:count]
            self._took(count)
            data = data[count:]

    def copy(self, reader: FileIO, start: int, count: int) -> None:
        """Append `count` bytes of an open file, from `start` on."""
        reader.seek(start)
        while count:
            with naming(reader.name):
                got = reader.readinto(self._room[:count])
            if not got:
                raise SwaaError(f"{reader.name!s} ended while it was read: fetch the source again")
            self._took(got)
            count -= got

    def finish(self) -> None:
        """See everything written and hashed, and the file to the disk."""
        self._send()
        self._settle()
        with naming(self._file.name):
            os.fsync(self._file.fileno())

    @property
    def _room(self) -> memoryview:
        return self._filling[self._filled :]

    def _took(self, count: int) -> None:
        self._filled += count
        if self._filled == _BLOCK:
            self._send()

    def _send(self) -> None:
        """Have the block that is filled hashed and written, once its predecessor is."""
        self._settle()
        block = self._filling[: self._filled]
        self._on_its_way = [
            self._helpers.submit(self._digest.update, block),
            self._helpers.submit(_write, self._file, block),
        ]
        self._filling, self._other, self._filled = self._other, self._filling, 0
        self._sent = len(block)

    def _settle(self) -> None:
        if self._on_its_way:
            for done in self._on_its_way:
                done.result()
            self._on_its_way = []
            self._advance(self._sent)


def _write(file: FileIO, data: memoryview) -> None:
    while data:
        try:
            data = data[file.write(data) :]
        except OSError as error:
            # The end of a file is no whole block, and some file systems want more than others.
            if error.errno != errno.EINVAL or not _set_direct(file, on=False):
                error.filename = error.filename or file.name
                raise


def _set_direct(file: FileIO, *, on: bool) -> bool:
    """Write past the page cache from now on, or not any more; False if that is nothing new, or cannot be done."""
    if fcntl is None or not _DIRECT:
        return False
    flags = fcntl.fcntl(file.fileno(), fcntl.F_GETFL)
    if bool(flags & _DIRECT) == on:
        return False
    try:
        fcntl.fcntl(file.fileno(), fcntl.F_SETFL, flags ^ _DIRECT)
    except OSError:
        return False
    return True
