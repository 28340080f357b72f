"""How far the weights are: a bar on a terminal, a line per file elsewhere, nothing when quiet."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from swaa_convert.sizes import show_bytes


class Progress:
    """Counts bytes and files; quiet, it shows nothing."""

    def advance(self, count: int) -> None:
        """So many more bytes are written."""

    def finished(self, name: str) -> None:
        """A file is written."""


class LineProgress(Progress):
    """Says each file as it is finished, for logs.

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
        self._start = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count

    def finished(self, name: str) -> None:
        self._count += 1
        passed = time.monotonic() - self._start
        left = passed * max(self._size - self._done, 0) / self._done if self._done else 0.0
        amount = f"{show_bytes(self._done)} of {show_bytes(max(self._size, self._done))}"
        click.echo(f"Wrote {name} ({self._count} of {self._files}, {amount}, {_minutes(left)} left)", err=True)


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
