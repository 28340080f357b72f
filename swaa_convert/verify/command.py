"""`swaa-convert verify`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.verify.report import document, fine, table
from swaa_convert.verify.verify import open_converted, verify_repo

_EPILOG = """\
\b
Examples:
  swaa-convert verify ./q3-swaa
  swaa-convert verify ./q3-swaa --source Qwen/Qwen3-8B
  swaa-convert verify ./q3-tuned-swaa --source Qwen/Qwen3-4B --lora ./my-swaa-lora
"""


@click.command(epilog=_EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--source", metavar="ID|DIR", help="Compare the tensors with this source's, bit for bit.")
@click.option(
    "--lora",
    metavar="PATH",
    multiple=True,
    help="The local adapter that was merged, if it isn't beside the repo or the source.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document for programs.")
def verify(folder: Path, source: str | None, lora: tuple[str, ...], as_json: bool) -> None:
    """Say whether the converted repo in DIR is what was converted.

    Every file is compared with the manifest that the conversion wrote, the embedded code with what this version
    ships, the tensors with the source's or with the same merge done again, and the model answers a few tokens if its
    weights fit in memory. No file of the repo is run. Exit status 0: all is well, in one line; 1: with the list of
    every difference, or with what could not be compared and why.
    """
    if lora and source is None:
        raise SwaaUsageError("--lora merges again into the source: say which with --source")
    repo, manifest = open_converted(folder)
    size = sum(entry.size for entry in manifest.files.values())
    with reading(size * (1 if source is None else 2)) as advance:
        verdict = verify_repo(repo, manifest, source, lora, advance=advance, quiet=as_json)
    if as_json:
        click.echo(json.dumps(document(verdict), indent=2))
    else:
        click.echo(fine(verdict) if verdict.fine else table(verdict))
    if verdict.differences:
        count = "1 difference" if verdict.differences == 1 else f"{verdict.differences} differences"
        raise SwaaError(
            f"{folder} is not what was converted ({count}): convert the source again, or fetch the repo again"
        )
    if verdict.failed:
        raise SwaaError(f"{folder}: {'; '.join(check.said for check in verdict.failed)}")


@contextmanager
def reading(size: int) -> Iterator[Advance]:
    """A bar of bytes on standard error, on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = ("Reading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=size)
        yield lambda count: bar.advance(task, count)
