"""A benchmark as text for people and as JSON for programs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from swaa_convert import __version__
from swaa_convert.bench.settings import Settings
from swaa_convert.bench.stats import Figures, Spread, figures
from swaa_convert.bench.subject import Subject
from swaa_convert.bench.variants import describe
from swaa_convert.errors import SwaaError
from swaa_convert.inspect.words import show_memory, show_share, show_tokens
from swaa_convert.manifest import read_manifest
from swaa_convert.measured import identity

if TYPE_CHECKING:
    from swaa_convert.bench.compare import Cell
    from swaa_convert.bench.models import Contestant
    from swaa_convert.bench.profile import Profile

FORMAT = 1
LEGEND = """\
first token: from the call to the first token, so reading the prompt. next token: the median of all later ones.
±: half the range over the repeats. speed-up, of full: medians against full attention's, measured in turn with it.
KV cache: the bytes that it holds at the end. peak: the most memory held in a run, weights aside.
The first prompt of a new length may take longer than any of these: what is compiled for it was compiled before."""
OUT_OF_MEMORY = """\
out of memory: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True in the environment keeps a GPU's memory in one piece; if
that isn't enough, take fewer --layers or shorter --lengths."""
LATE = "out of memory in run N: the figures beside it are those of the runs that finished before."
PROFILE_LEGEND = """\
Shares of the time measured without the profiler. linear: matrix products of linear layers and experts. idle: the
device waits for the host (launch bound); on a CPU, Python between the operations."""
_COLUMNS = "first token|speed-up|next token|speed-up|prompt tok/s|new tok/s|KV cache|of full|peak".split("|")


def header(
    subject: Subject, settings: Settings, machine: Mapping[str, Any], contestants: Sequence["Contestant"], command: str
) -> str:
    """What is measured, with what and how."""
    return "\n".join(f"{name:10}{text}" for name, text in _facts(subject, settings, machine, contestants, command))


def _facts(
    subject: Subject, settings: Settings, machine: Mapping[str, Any], contestants: Sequence["Contestant"], command: str
) -> Iterable[tuple[str, str]]:
    cuda = f", CUDA {machine['cuda']}" if machine["cuda"] else f", {machine['threads']} threads"
    libraries = ("torch", "transformers", "triton", "flash-attn", "flash-attn-3", "flash-attn-4")
    software = [f"{name} {machine[name] or 'not installed'}" for name in libraries]
    yield "Machine", f"{machine['device']}{cuda}"
    yield "Software", ", ".join([*software, f"swaa-convert {machine['swaa-convert']}"])
    yield "Model", ", ".join(_model(subject, settings, contestants[-1]))
    rounds = f"{settings.repeats} runs each, in turn, after a warm-up"
    cache = ", static cache" if settings.cache == "static" else ""
    yield "Run", f"{settings.backend}, batch {settings.batch}, {settings.new_tokens} new tokens, {rounds}{cache}"
    yield "Command", command
    for number, contestant in enumerate(contestants):
        notes = "; ".join(filter(None, (describe(contestant.swaa, subject.layers), contestant.note)))
        yield "" if number else "Variants", f"{contestant.name}: {notes}"
    for note in notes_on(subject, settings):
        yield "Note", note


def _model(subject: Subject, settings: Settings, carrier: "Contestant") -> list[str]:
    cut = f"the first {subject.layers} of {subject.depth}" if subject.layers < subject.depth else str(subject.depth)
    kind = "random weights" if settings.random_weights else "weights"
    size = f"{kind} of {show_memory(carrier.weight_bytes)} shared by all variants"
    return [subject.name, subject.family.architecture, f"{cut} layers", settings.dtype, size]


def notes_on(subject: Subject, settings: Settings) -> list[str]:
    """What a reader of the numbers should know."""
    most, longest = subject.config.get("max_position_embeddings"), max(settings.lengths) + settings.new_tokens
    found = []
    if not settings.random_weights and isinstance(most, int) and longest > most:
        found.append(
            f"{longest:,} tokens run past the model's max_position_embeddings, {most:,}: "
            "the times hold, but what it would write there would not"
        )
    if settings.cache == "static":
        found.append("a static cache is as large in windowed layers as in full ones; without FA decode they read less")
    if subject.other_code:
        found.append(
            f"{subject.name} carries other code than swaa-convert {__version__} writes, which is what is measured: "
            "convert its source again to have it"
        )
    return found


def table(cells: Sequence["Cell"], settings: Settings) -> Table:
    """All variants at one length, full attention first."""
    title = f"Prompt of {show_tokens(cells[0].length)} tokens"
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), title_style="bold")
    made.add_column("variant", no_wrap=True)
    for column in _COLUMNS:
        made.add_column(column, justify="right", no_wrap=True)
    full = figures(cells[0], settings.batch)
    for cell in cells:
        found = figures(cell, settings.batch)
        made.add_row(_label(cell), *(_row(found, full) if found else ["out of memory"]))
    return made


def legend(cells: Sequence["Cell"]) -> str:
    """What the tables' columns mean, and what to do where memory ran out."""
    short = [cell for cell in cells if cell.out_of_memory]
    late = any(cell.runs for cell in short)
    return "\n".join([LEGEND, *([LATE] if late else []), *([OUT_OF_MEMORY] if short else [])])


def fallbacks(contestants: Sequence["Contestant"]) -> list[str]:
    """Where the kernel that a variant's figures are meant to be of could not run, and what ran instead."""
    return [f"{one.name}: {said}" for one in contestants for said in one.fallbacks]


def _label(cell: "Cell") -> str:
    """A row's name, which says too if memory ran out after some runs."""
    late = cell.out_of_memory and cell.runs
    return f"{cell.name}, out of memory in run {len(cell.runs) + 1}" if late else cell.name


def _row(found: Figures, full: Figures | None) -> list[str]:
    return [
        show_time(found.first),
        show_speed_up(found.first, full.first if full else None),
        show_time(found.token),
        show_speed_up(found.token, full.token if full else None),
        f"{found.prompt_rate:,.0f}",
        "n/a" if found.token_rate is None else _rate(found.token_rate),
        show_memory(found.kv_bytes),
        show_share(found.kv_bytes / full.kv_bytes) if full else "n/a",
        "n/a" if found.peak_bytes is None else show_memory(found.peak_bytes),
    ]


def show_time(spread: Spread | None) -> str:
    """A time and half its range, three digits."""
    if spread is None:
        return "n/a"
    seconds = spread.median
    text = (
        f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s" if seconds >= 1 else f"{_three(1000 * seconds)} ms"
    )
    # One run has no spread.
    return f"{text} ±{100 * spread.share:.0f}%" if spread.high > spread.low else text


def _three(value: float) -> str:
    """About three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def show_speed_up(found: Spread | None, full: Spread | None) -> str:
    """How many times as fast as full attention."""
    return "n/a" if found is None or full is None else f"{full.median / found.median:.2f}x"


def profile_table(profiles: Mapping[str, Sequence["Profile"]], length: int) -> Table:
    """Where the time goes, per variant and phase."""
    title = f"Where the time goes, prompt of {show_tokens(length)} tokens"
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0), title_style="bold")
    for number, column in enumerate(("variant", "phase", "time", "attention", "linear", "other", "idle")):
        made.add_column(column, justify="right" if number > 1 else "left", no_wrap=True)
    for name, phases in profiles.items():
        for found in phases:
            shares = [show_share(found.shares[kind]) for kind in ("attention", "linear", "other", "idle")]
            made.add_row(name, found.phase, f"{_three(1000 * found.seconds)} ms", *shares)
        if not phases:
            made.add_row(name, "out of memory")
    return made


def document(
    subject: Subject,
    settings: Settings,
    machine: Mapping[str, Any],
    contestants: Sequence["Contestant"],
    cells: Sequence["Cell"],
    command: str,
) -> dict[str, Any]:
    """Everything measured; times in seconds, sizes in bytes, what is not known null."""
    return {
        "format": FORMAT,
        "command": command,
        "machine": dict(machine),
        "model": {
            "name": subject.name,
            "revision": subject.source.revision,
            "architecture": subject.family.architecture,
            "layers": subject.layers,
            "layers_on_disk": subject.depth,
            "converted": _converted(subject),
        },
        "settings": asdict(settings),
        "notes": notes_on(subject, settings) + fallbacks(contestants),
        "variants": [
            {"name": one.name, "swaa_config": one.swaa, "note": one.note, "weight_bytes": one.weight_bytes}
            for one in contestants
        ],
        "results": [_result(cell, settings) for cell in cells],
        "profile": None,
    }


def _converted(subject: Subject) -> str | None:
    """Which converted repo was measured, whatever it is called; None for a checkpoint that is none."""
    try:
        manifest = read_manifest(subject.source)
    except SwaaError:
        return None
    return None if manifest is None else identity(manifest)


def profile_document(profiles: Mapping[str, Sequence["Profile"]]) -> dict[str, Any]:
    """The document's `profile`: per variant its phases, none if memory ran out."""
    return {name: [asdict(found) for found in phases] for name, phases in profiles.items()}


def _result(cell: "Cell", settings: Settings) -> dict[str, Any]:
    found = figures(cell, settings.batch)
    return {
        "variant": cell.name,
        "length": cell.length,
        "out_of_memory": cell.out_of_memory,
        "figures": asdict(found) if found else None,
        "warm_up": asdict(cell.warm_up) if cell.warm_up else None,
        "runs": [asdict(run) for run in cell.runs],
    }
