"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swaa_convert.errors import SwaaError, SwaaUsageError


def check_writable(path: Path | None) -> None:
    """Say before the work begins that a file could not be written."""
    if path is not None:
        with _one_line_errors(path):
            # Taking the place of /dev/null would be the end of it.
            if not path.name or (path.exists() and not path.is_file()):
                raise SwaaUsageError(f"{str(path)!r} is no file that can be written: name another")
            part = _part(path)
            part.touch()
            part.unlink()


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file to fill: it takes the place of `path` when the block ends well, and vanishes otherwise."""
    part = _part(path)
    try:
        with _one_line_errors(path):
            yield part
            os.replace(part, _real(path))
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    real = _real(path)
    return real.with_name(f".{real.name}.{os.getpid()}.part")


def _real(path: Path) -> Path:
    """What a link leads to: the link stays."""
    return Path(os.path.realpath(path))


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror or error}: name a file that can be written") from error
