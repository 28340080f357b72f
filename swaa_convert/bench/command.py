"""`swaa-convert bench`."""

import json
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swaa_convert.bench.output import check_writable, written
from swaa_convert.bench.settings import CACHES, DTYPES
from swaa_convert.bench.subject import cut, full_subject, open_subject
from swaa_convert.bench.variants import Asked, parse_recipes, settle_variants
from swaa_convert.errors import SwaaUsageError
from swaa_convert.grouped_help import GroupedCommand, options_of, parsed
from swaa_convert.sizes import parse_size

if TYPE_CHECKING:
    from swaa_convert.bench.compare import Cell
    from swaa_convert.bench.models import Contestant
    from swaa_convert.bench.settings import Settings

_compared = options_of("What is compared")
_work = options_of("Work")
_where = options_of("Machine")
_output = options_of("Output")
_FILE = click.Path(dir_okay=False, path_type=Path)
# No model reads more, and the prompt alone would fill the memory.
_LONGEST = 2**28
_COUNT = click.IntRange(1, _LONGEST)
_EPILOG = """\
\b
Examples:
  swaa-convert bench ./q3-swaa
  swaa-convert bench Qwen/Qwen3-8B --random-weights --recipes balanced,efficiency --lengths 8k,64k
  swaa-convert bench config.json --random-weights --layers 8 \\
      --recipes "quality,lean:window=1k+keep_first=16+interleave=every:4+1+fa_decode=off" --png bench.png

\b
A recipe is a preset or a YAML file, perhaps with +KEY=VALUE behind it; KEY=VALUE+KEY=VALUE, which starts from
balanced; or own, a converted repo's. Lists stand in brackets: full_layers=[1,5,9]. NAME: before it names it.
"""


class _Command(GroupedCommand):
    """Remembers how it was called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["bench.command"] = shlex.join(["swaa-convert", "bench", *args])
        return super().parse_args(ctx, args)


def _lengths(text: str) -> tuple[int, ...]:
    lengths = sorted({parse_size(part) for part in text.split(",")})
    if lengths[0] < 1:
        raise ValueError("a length must be 1 token or more")
    if lengths[-1] > _LONGEST:
        raise ValueError(f"a length must be at most {_LONGEST:,} tokens")
    return tuple(lengths)


@click.command(cls=_Command, epilog=_EPILOG)
@click.argument("source")
@_compared("--recipes", metavar="LIST", callback=parsed(parse_recipes), help="Recipes to compare (see below).")
@_compared("--baseline", metavar="ID", help="Full attention of another checkpoint instead of SOURCE's own.")
@_compared("--random-weights", is_flag=True, help="Draw the weights: SOURCE needs a config.json only.")
@_compared("--layers", metavar="N", type=_COUNT, help="Only the first N layers, where memory is short.")
@_compared("--revision", metavar="REV", help="SOURCE's revision on the Hub.")
@_work(
    "--lengths",
    metavar="LIST",
    callback=parsed(_lengths),
    help="Prompt lengths in tokens.  [default: 8k,32k,128k; on a CPU 512,2k]",
)
@_work("--new-tokens", metavar="N", type=_COUNT, help="Tokens to generate.  [default: 128; on a CPU 16]")
@_work("--batch", metavar="N", type=_COUNT, default=1, show_default=True, help="Prompts at once.")
@_work("--repeats", metavar="N", type=_COUNT, default=3, show_default=True, help="Timed runs of each.")
@_where("--device", metavar="NAME", help="As torch names it.  [default: cuda, if there is one, else cpu]")
@_where("--dtype", type=click.Choice(DTYPES), help="[default: bfloat16; on a CPU float32]")
@_where("--backend", metavar="NAME", default="sdpa", show_default=True, help="attn_implementation of all variants.")
@_where(
    "--cache",
    type=click.Choice(CACHES),
    default="dynamic",
    show_default=True,
    help="static: of fixed size, with compiled decode steps on a GPU.",
)
@_output("--profile", "with_profile", is_flag=True, help="Say where the time goes, at the largest length.")
@_output("--json", "json_file", type=_FILE, metavar="FILE", help="Write everything measured, for programs.")
@_output("--png", type=_FILE, metavar="FILE", help="Draw time to first token and KV memory against length.")
def bench(
    source: str,
    recipes: tuple[Asked, ...] | None,
    baseline: str | None,
    layers: int | None,
    revision: str | None,
    random_weights: bool,
    with_profile: bool,
    json_file: Path | None,
    png: Path | None,
    device: str | None,
    **given: Any,
) -> None:
    """Measure what a converted model gains on this machine, beside the same model with full attention.

    SOURCE is a converted repo or a full-attention checkpoint: a folder or a Hub id, with --random-weights a
    config.json too. All variants run on the same weights and the same backend, in turn.
    """
    if with_profile and given["cache"] == "static":
        raise SwaaUsageError("--profile can't look into compiled steps: leave out --cache static")
    if json_file is not None and png is not None and json_file.resolve() == png.resolve():
        raise SwaaUsageError(f"--json and --png both name {png}: give each a file of its own")
    if "|" in given["backend"]:
        raise SwaaUsageError(f"--backend {given['backend']}: paged attention is for servers; take sdpa, for example")
    check_writable(json_file)
    check_writable(png)
    if png is not None:
        from swaa_convert.demo.picture import require_matplotlib

        require_matplotlib()
    subject = cut(open_subject(source, revision, random_weights=random_weights), layers)
    other = None if baseline is None else full_subject(baseline, layers, random_weights=random_weights)
    variants = settle_variants(recipes, subject)

    # Imported here: torch and transformers take seconds to load, and --help needs neither.
    from swaa_convert.bench import picture, report
    from swaa_convert.bench.machine import environment
    from swaa_convert.bench.models import build
    from swaa_convert.bench.settings import settle
    from swaa_convert.bench.stats import figures

    settings = settle(device, given | {"random_weights": random_weights})
    machine, command = environment(settings.device), str(click.get_current_context().meta["bench.command"])
    with tempfile.TemporaryDirectory(prefix="swaa-bench-") as folder:
        contestants = build(subject, other, variants, settings, Path(folder))
    _print(report.header(subject, settings, machine, contestants, command))
    cells = _measure(contestants, settings)
    _print(report.legend(cells), *report.fallbacks(contestants))
    document = report.document(subject, settings, machine, contestants, cells, command)
    _write(json_file, document)
    if png is not None:
        # A line has no room to say that a point is of fewer runs than the others.
        whole = [None if cell.out_of_memory else figures(cell, settings.batch) for cell in cells]
        points = [(cell.name, cell.length, found) for cell, found in zip(cells, whole, strict=True)]
        with written(png) as file:
            picture.draw(points, f"{subject.name}  ·  {machine['device']}  ·  {settings.backend}", file)
    if with_profile:
        # Last, and the times are safe by now: profilers fail in ways of their own.
        profiles = _profiles(contestants, cells, settings)
        _write(json_file, document | {"profile": report.profile_document(profiles)})


def _measure(contestants: "list[Contestant]", settings: "Settings") -> "list[Cell]":
    """All cells; each length's table is printed as soon as it is measured."""
    from swaa_convert.bench import report
    from swaa_convert.bench.compare import compare, steps
    from swaa_convert.quiet import silence

    cells: list[Cell] = []
    for length in settings.lengths:
        with silence(), _progress(f"Prompt of {length:,} tokens", steps(contestants, settings)) as advance:
            found = compare(contestants, length, settings, advance)
        _print(report.table(found, settings))
        cells += found
    return cells


def _profiles(contestants: "list[Contestant]", cells: "list[Cell]", settings: "Settings") -> dict[str, Any]:
    from swaa_convert.bench import report
    from swaa_convert.bench.profile import profiled
    from swaa_convert.quiet import silence

    largest, last = settings.lengths[-1], cells[-len(contestants) :]
    with silence():
        found = {one.name: profiled(one, cell, settings) for one, cell in zip(contestants, last, strict=True)}
    _print(report.profile_table(found, largest), report.PROFILE_LEGEND)
    return found


def _write(json_file: Path | None, document: dict[str, Any]) -> None:
    if json_file is not None:
        with written(json_file) as file:
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, where that is a terminal; yields what advances it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _print(*parts: object) -> None:
    from rich.console import Console

    # Wider than many terminals: a row that wraps is still read, one that is cut is not.
    console = Console(highlight=False, markup=False, soft_wrap=True, width=200)
    for part in parts:
        console.print(part)
        console.print()
