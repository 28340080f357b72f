"""The benchmark's picture: time to first token and KV memory against prompt length, a line for each variant."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swaa_convert.bench.stats import Figures
from swaa_convert.bench.variants import FULL
from swaa_convert.demo.picture import require_matplotlib
from swaa_convert.inspect.words import show_tokens

_TEXT, _QUIET, _GRID = "#1f2933", "#67727e", "#e9edf1"
_INK = ("#1f7a6d", "#d9622b", "#3b7dd8", "#b8860b", "#8e5bb5", "#c2466f")
_GIB = 1024**3
# A point of a line: variant, length in tokens, and its figures unless memory ran out.
Point = tuple[str, int, Figures | None]


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Write the picture as a PNG."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), dpi=110, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, "time to first token, seconds", points, lambda found: found.first.median)
    _panel(right, "KV memory, GiB", points, lambda found: found.kv_bytes / _GIB)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10, color=_QUIET)
    figure.savefig(path, format="png")


def _panel(panel: Any, title: str, points: Sequence[Point], value: Callable[[Figures], float]) -> None:
    names, lengths = list(dict.fromkeys(name for name, _, _ in points)), sorted({length for _, length, _ in points})
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_title(title, fontsize=12, fontweight="bold", loc="left", color=_TEXT)
    for number, name in enumerate(names):
        line = [(length, value(found)) for owner, length, found in points if owner == name and found is not None]
        ink = _TEXT if name == FULL else _INK[(number - 1) % len(_INK)]
        # Each line is thinner than the one below it, so that equal ones all show.
        width = max(4.5 - 1.25 * number, 1.5)
        panel.plot([x for x, _ in line], [y for _, y in line], color=ink, marker="o", linewidth=width, label=name)
    panel.set_xscale("log", base=2)
    # Where memory never sufficed there is nothing to scale.
    if any(found is not None for _, _, found in points):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set_xticks(lengths, [show_tokens(length) for length in lengths])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("prompt, tokens", color=_QUIET)
    panel.grid(color=_GRID)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    panel.tick_params(which="both", length=0, labelsize=8.5, colors=_QUIET)
