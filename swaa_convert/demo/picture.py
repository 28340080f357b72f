"""The demo's picture: accuracy against attention work, a panel for each mode. matplotlib is imported when drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swaa_convert.demo.evaluate import MODES, Exam, Score
from swaa_convert.demo.recipes import Settings
from swaa_convert.errors import SwaaError

_INK = {"source": "#1f2933", "single": "#d9622b", "combined": "#1f7a6d"}
_KINDS = {"source": "full attention", "single": "window with one method at most", "combined": "methods combined"}
_QUIET = "#67727e"
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]
# In units of accuracy: the height of a line of text, and where the lowest and the highest may end.
_LEADING, _LOWEST, _HIGHEST = 0.068, -0.08, 1.1


def require_matplotlib() -> None:
    """Say at once, before anything is measured, that no picture can be drawn."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise SwaaError("--png needs matplotlib: pip install 'swaa-convert[plots]'") from error
    except ValueError as error:
        # It reads its settings while it is imported.
        raise SwaaError(f"--png: matplotlib can't start ({error}): unset MPLBACKEND, or mend its settings") from error


def draw(scores: list[Score], exam: Exam, settings: Settings, path: Path) -> None:
    """Write the picture as a PNG."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.6), dpi=100, facecolor="white", layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, mode in zip(panels, MODES, strict=True):
        _panel(panel, mode, scores)
    panels[-1].set_xlabel("attention work, of full attention's", color=_QUIET)
    handles = [panels[0].scatter([], [], s=46, color=_INK[kind], label=label) for kind, label in _KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(_title(exam, settings), fontsize=10, color=_QUIET)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror or error}") from error


def _title(exam: Exam, settings: Settings) -> str:
    return (
        f"prompts of {exam.length:,} tokens, {exam.samples} for every point  ·  window {settings.window}, "
        f"{settings.keep_first} sinks, tail {settings.fa_tail}"
    )


def _panel(panel: Any, mode: str, scores: list[Score]) -> None:
    title = {"direct": "answering directly", "thinking": "thinking first"}[mode]
    panel.set_title(title, fontsize=12, fontweight="bold", loc="left")
    panel.set(xlim=(0, 1.03), ylim=(-0.1, 1.12), xticks=_QUARTERS, yticks=_QUARTERS)
    panel.xaxis.set_major_formatter("{x:.0%}")
    panel.yaxis.set_major_formatter("{x:.0%}")
    panel.set_ylabel("right answers", color=_QUIET)
    panel.grid(color="#e9edf1")
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0, labelsize=8.5, colors=_QUIET)
    for score in scores:
        # Points on top of each other show through.
        panel.scatter(score.work, getattr(score, mode), s=46, color=_INK[score.contender.kind], alpha=0.75, zorder=3)
    _labels(panel, mode, scores)


def _labels(panel: Any, mode: str, scores: list[Score]) -> None:
    """A name beside every point; names of points that do about the same work are kept apart."""
    for column in _columns(scores):
        heights = spread([getattr(score, mode) for score in column])
        # Full attention stands at the right edge, so its name stands on its left.
        right = column[0].work < 0.9
        place = max(score.work for score in column) + 0.016 if right else column[0].work - 0.016
        for score, height in zip(column, heights, strict=True):
            panel.annotate(
                score.contender.name,
                (score.work, getattr(score, mode)),
                (place, height),
                ha="left" if right else "right",
                va="center",
                fontsize=8.2,
                color=_INK[score.contender.kind],
                arrowprops={"arrowstyle": "-", "color": "#c3ccd4", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
            )


def _columns(scores: list[Score]) -> list[list[Score]]:
    """The scores grouped by attention work, less than a tenth apart within a group."""
    columns: list[list[Score]] = []
    for score in sorted(scores, key=lambda score: score.work):
        if columns and score.work - columns[-1][0].work < 0.1:
            columns[-1].append(score)
        else:
            columns.append([score])
    return columns


def spread(heights: list[float]) -> list[float]:
    """The heights moved apart to at least a line of text, in the same order, near where they were."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    runs: list[_Run] = []
    for index in order:
        runs.append(_Run(heights[index], 1))
        while len(runs) > 1 and runs[-1].bottom < runs[-2].top:
            runs.append(runs.pop().joined(runs.pop()))
    lines = [run.bottom + _LEADING * (number + 0.5) for run in runs for number in range(run.count)]
    return [line for _, line in sorted(zip(order, lines, strict=True))]


@dataclass(frozen=True)
class _Run:
    """Lines of text that touch each other, around a height, within the panel."""

    middle: float
    count: int

    @property
    def bottom(self) -> float:
        size = _LEADING * self.count
        return max(_LOWEST, min(self.middle - size / 2, _HIGHEST - size))

    @property
    def top(self) -> float:
        return self.bottom + _LEADING * self.count

    def joined(self, other: "_Run") -> "_Run":
        count = self.count + other.count
        return _Run((self.middle * self.count + other.middle * other.count) / count, count)
