"""`swaa-convert demo`."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from swaa_convert.bench.output import check_writable, written
from swaa_convert.errors import SwaaError
from swaa_convert.grouped_help import GroupedCommand, options_of
from swaa_convert.resources import DEMO_CHECKPOINT

_FILE = click.Path(dir_okay=False, path_type=Path)
_exam = options_of("Exam")
_recipes = options_of("Recipes")
_output = options_of("Output")
_EPILOG = """\
\b
Examples:
  swaa-convert demo
  swaa-convert demo --length 512 --samples 100 --png demo.png
"""


@click.command(cls=GroupedCommand, epilog=_EPILOG)
@_exam("--length", type=click.IntRange(96, 2048), default=1024, show_default=True, help="Tokens per prompt.")
@_exam("--samples", type=click.IntRange(1), default=20, show_default=True, help="Prompts per recipe and mode.")
@_exam("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other prompts.")
@_recipes("--window", type=click.IntRange(1), default=64, show_default=True, help="Keys in the window.")
@_recipes("--keep-first", type=click.IntRange(1), default=4, show_default=True, help="Sinks, where there are any.")
@_recipes("--fa-tail", type=click.IntRange(1), default=16, show_default=True, help="Tail, where there is one.")
@_output("--png", type=_FILE, metavar="FILE", help="Draw accuracy against attention work.")
@_output("--json", "json_file", type=_FILE, metavar="FILE", help="Write the results for programs.")
@_exam(
    "--checkpoint",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=DEMO_CHECKPOINT,
    show_default="the one shipped",
    help="Another folder that examples/train_needle.py wrote.",
)
def demo(
    length: int,
    samples: int,
    seed: int,
    window: int,
    keep_first: int,
    fa_tail: int,
    png: Path | None,
    json_file: Path | None,
    checkpoint: Path,
) -> None:
    """Convert a small trained model under several recipes and measure what each does to its answers.

    The model was trained with full attention to remember whom a travel diary met in which city. Every recipe
    answers the same prompts, directly and after thinking.
    """
    # Imported here: torch and transformers take seconds to load, and --help needs neither.
    from swaa_convert.demo import picture, report
    from swaa_convert.demo.evaluate import Exam, Score, measure
    from swaa_convert.demo.recipes import Settings, contenders

    if not (checkpoint / "config.json").is_file():
        raise SwaaError(f"{checkpoint} holds no config.json: give a folder that examples/train_needle.py wrote")
    check_writable(json_file)
    check_writable(png)
    if png is not None:
        picture.require_matplotlib()
    exam, settings = Exam(length, samples, seed), Settings(window, keep_first, fa_tail)
    rivals = contenders(settings)
    scores: list[Score] = []
    with tempfile.TemporaryDirectory(prefix="swaa-demo-") as folder, _progress(2 * len(rivals)) as advance:
        for rival in rivals:
            scores.append(measure(checkpoint, rival, exam, Path(folder), advance))
    _print(report.headline(exam, settings), report.table(scores), report.legend(exam))
    if json_file is not None:
        with written(json_file) as file:
            file.write_text(json.dumps(report.as_json(scores, exam, settings), indent=2) + "\n", encoding="utf-8")
    if png is not None:
        with written(png) as file:
            picture.draw(scores, exam, settings, file)
        click.echo(f"Picture: {png}", err=True)


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, where that is a terminal; yields what advances it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Converting and asking", total=steps)
        yield lambda: bar.advance(task)


def _print(*parts: object) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for part in parts:
        console.print(part)
        console.print()
