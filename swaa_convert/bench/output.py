"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swaa_convert.errors import SwaaError


def check_writable(path: Path | None) -> None:
    """Say before the work begins that a file could not be written."""
    if path is not None:
        with _one_line_errors(path):
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
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror or error}") from error
