"""How far the weights are: a bar on a terminal, a line per file elsewhere, nothing when quiet."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from swaa_convert.sizes import show_bytes

# How often a long file says how far it is.
_SECONDS = 10


class Progress:
    """Counts bytes, which any thread may tell, and files; quiet, it shows nothing."""

    def advance(self, count: int) -> None:
        """So many more bytes are written."""

    def finished(self, name: str) -> None:
        """A file is written."""


class LineProgress(Progress):
    """Says in plain lines, for logs, how far it is: at each of several files, and now and then within one.

    Parameters
    ----------
    size:
        Bytes to write.
    files:
        Files to write.
    """

    def __init__(self, size: int, files: int) -> None:
        self._size, self._files = size, files
        self._done = self._count = 0
        self._start = self._said = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() - self._said > _SECONDS:
                self._say("Wrote")

    def finished(self, name: str) -> None:
        self._count += 1
        if self._files > 1:
            self._say(f"Wrote {name}:")

    def _say(self, what: str) -> None:
        self._said = time.monotonic()
        left = (self._said - self._start) * max(self._size - self._done, 0) / self._done if self._done else 0.0
        amount = f"{show_bytes(self._done)} of {show_bytes(self._size)}"
        click.echo(f"{what} {amount}, {self._count} of {self._files} files, {_minutes(left)} left", err=True)


class BarProgress(Progress):
    """A bar of rich's that counts bytes, with the number of files before it."""

    def __init__(self, bar: object, files: int, size: int) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self._bar, self._files, self._count = bar, files, 0
        self._task = bar.add_task(self._label(), total=size)

    def advance(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def finished(self, name: str) -> None:
        self._count += 1
        self._bar.update(self._task, description=self._label())

    def _label(self) -> str:
        return f"Writing {self._count} of {self._files} files"


@contextmanager
def progress(size: int, files: int, *, quiet: bool) -> Iterator[Progress]:
    """Show how `size` bytes in so many files are written while the block runs, on standard error."""
    if quiet:
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineProgress(size, files)
        return
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        yield BarProgress(bar, files, size)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
