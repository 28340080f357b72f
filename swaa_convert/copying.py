"""Copying files at the speed of the file system: shared blocks where it can, else inside the kernel."""

import errno
import os
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.system_errors import naming

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_CHUNK = 64 * 1024**2
# FICLONE of linux/fs.h.
_CLONE = 0x40049409
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}

Advance = Callable[[int], None]


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """Copy the bytes of `source` to the new file `target`, telling `advance` how many were written."""
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        while count := _copy_chunk(reader, writer):
            advance(count)


def clone_file(source: Path, target: Path) -> bool:
    """Make the new file `target` share the blocks of `source`; False, and nothing done, where the system cannot."""
    if fcntl is None or sys.platform != "linux":
        return False
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        try:
            fcntl.ioctl(writer.fileno(), _CLONE, reader.fileno())
        except OSError:
            # Whatever it is, making a copy says it better.
            target.unlink()
            return False
    return True


def link_file(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        raise SwaaError(
            f"--link: {source.name} cannot be hard-linked there ({error.strerror}): "
            "put --out on the source's file system, or drop --link to copy"
        ) from error


def write_file(target: Path, data: bytes) -> None:
    """Write a small new file and see it to the disk."""
    with naming(target), target.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_chunk(reader: FileIO, writer: FileIO) -> int:
    """Copy the next bytes; 0 at the end. Both files keep their own position."""
    # The kernel also says 0 on file systems where it cannot: only a read that finds nothing is the end.
    return _copy_in_kernel(reader.fileno(), writer.fileno()) or _copy_through_memory(reader, writer)


def _copy_in_kernel(reader: int, writer: int) -> int:
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(reader, writer, _CHUNK)
    except OSError:
        # Not between these two files; or whatever else it is, reading and writing say which of the two it is about.
        return 0


def _copy_through_memory(reader: FileIO, writer: FileIO) -> int:
    with naming(reader.name):
        data = memoryview(os.read(reader.fileno(), _CHUNK // 8))
    count = len(data)
    with naming(writer.name):
        while data:
            data = data[os.write(writer.fileno(), data) :]
    return count
