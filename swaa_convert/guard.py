"""Whatever happens, a user sees one line: no traceback, and no end of the work because nobody reads its output."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from swaa_convert.errors import SwaaError
from swaa_convert.system_errors import one_line_errors

# Set by whoever reports a bug: unexpected errors then end in Python's traceback.
TRACEBACK = "SWAA_TRACEBACK"


@contextmanager
def guarded() -> Iterator[None]:
    """End in one line for errors of the system, and for unexpected ones in one that asks for a report."""
    try:
        with one_line_errors():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except MemoryError as error:
        raise SwaaError("out of memory: close other programs, or use a machine with more") from error
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        raise SwaaError(
            f"unexpected {type(error).__name__} ({_first_line(error)}): this is a bug in swaa-convert; "
            f"please report it with what the same command prints under {TRACEBACK}=1"
        ) from error


def outlive_readers() -> None:
    """Let standard output and error outlive who reads them: `swaa-convert … | head -1` still does all its work."""
    sys.stdout = _outliving(sys.stdout)
    sys.stderr = _outliving(sys.stderr)


class _Pipe(io.FileIO):
    """The writing end of a pipe; what is written after its reader has gone is lost without an error."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _outliving(stream: TextIO) -> TextIO:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        # Closed, or not the system's.
        return stream
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stream
    stream.flush()
    pipe = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
    lines = bool(stream.line_buffering)
    return io.TextIOWrapper(pipe, encoding=stream.encoding, errors=stream.errors, line_buffering=lines)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
