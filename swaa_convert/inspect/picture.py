"""The picture of a converted repo: the mask of each kind of layer, and which layer is of which kind.

matplotlib is imported when something is drawn; all sizes are in inches.
"""

from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.inspect.figures import Rule
from swaa_convert.inspect.repo import ConvertedRepo
from swaa_convert.inspect.sketch import Kind, Sketch, kinds, mask_cells
from swaa_convert.inspect.words import show_tokens

_INK = {
    "": "#ffffff",
    "hidden": "#e9edf1",
    "window": "#3b7dd8",
    "sinks": "#ef8e2c",
    "decode": "#8fd0c3",
    "full": "#1f7a6d",
}
_LEGEND = {
    "window": "in the window",
    "sinks": "sinks",
    "decode": "FA decode",
    "full": "full attention",
    "hidden": "not seen",
}
_TEXT, _QUIET = "#1f2933", "#67727e"
_PANEL, _GAP, _LEFT, _RIGHT, _HEAD, _STRIP, _FOOT = 3.0, 0.95, 0.75, 0.5, 1.05, 0.55, 0.45
_PER_ROW = 48


def draw(repo: ConvertedRepo, path: Path) -> None:
    """Write the picture as a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SwaaError("--png needs matplotlib: pip install 'swaa-convert[plots]'") from error
    found = kinds(repo.rule)
    rows, panels = -(-repo.rule.depth // _PER_ROW), max(len(found), 2)
    width = _LEFT + panels * _PANEL + (panels - 1) * _GAP + _RIGHT
    height = _HEAD + _PANEL + 0.75 + _STRIP * rows + _FOOT
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    canvas = _Canvas(figure, width, height)
    _head(canvas, repo)
    for number, kind in enumerate(found):
        _mask(canvas, repo.rule, kind, _LEFT + number * (_PANEL + _GAP))
    _layers(canvas, repo.rule, rows)
    _legend(canvas, repo.rule)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror or error}") from error


class _Canvas:
    """A figure measured in inches from its top left corner."""

    def __init__(self, figure: Any, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        style = {"color": _TEXT, "va": "top", "fontsize": 9} | style
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)


def _head(canvas: _Canvas, repo: ConvertedRepo) -> None:
    rule = repo.rule
    canvas.text(_LEFT, 0.2, repo.name, fontsize=14, fontweight="bold")
    parts = ["full attention in every layer"]
    if rule.window is not None:
        parts = [f"window {rule.window:,}", f"sinks {rule.keep_first:,}"]
        parts += [f"full attention in {len(rule.full_layers)} of {rule.depth} layers"]
    if rule.fa_decode_layers:
        parts += ["FA decode"] + ([f"FA tail {rule.fa_tail:,}"] if rule.fa_tail else [])
    canvas.text(_LEFT, 0.5, "  ·  ".join(parts), color=_QUIET)


def _mask(canvas: _Canvas, rule: Rule, kind: Kind, left: float) -> None:
    """One panel: queries downwards, the keys that they see to the right."""
    from matplotlib.colors import to_rgb

    sketch = Sketch.of(rule)
    cells = mask_cells(rule, kind.layers[0], sketch)
    axes = canvas.axes(left, _HEAD, _PANEL, _PANEL)
    image = [[to_rgb(_INK[cell]) for cell in row] for row in cells]
    axes.imshow(image, extent=(0, sketch.total, sketch.total, 0), interpolation="nearest", aspect="auto")
    _scale(axes, rule, sketch)
    count = len(kind.layers)
    axes.set_title(f"{count} layer{'s' * (count != 1)}: {kind.title}", fontsize=9.5, color=_TEXT, loc="left", pad=6)


def _scale(axes: Any, rule: Rule, sketch: Sketch) -> None:
    """Ticks in tokens, a line where the prompt ends, and names for the two parts."""
    ticks = [sketch.prompt * quarter // 4 for quarter in range(5)]
    labels = [show_tokens(tick) for tick in ticks]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.tick_params(length=0, labelsize=7.5, colors=_QUIET, pad=3)
    axes.spines[:].set_visible(False)
    axes.axhline(sketch.prompt, color=_TEXT, linewidth=0.8, linestyle=(0, (2, 2)))
    for name, middle in (("prompt", sketch.prompt / 2), ("generated", (sketch.prompt + sketch.total) / 2)):
        style = {"fontsize": 7.5, "color": _QUIET, "rotation": 270, "ha": "left", "va": "center"}
        axes.text(sketch.total * 1.015, middle, name, **style)
    axes.set_xlabel("token that is seen", fontsize=8, color=_QUIET, labelpad=3)
    axes.set_ylabel("token that looks", fontsize=8, color=_QUIET, labelpad=3)


def _layers(canvas: _Canvas, rule: Rule, rows: int) -> None:
    """Two squares per layer: how it reads the prompt, and how it generates."""
    from matplotlib.patches import Rectangle

    # A model of few layers gets no giant squares.
    top, per_row = _HEAD + _PANEL + 0.65, max(-(-rule.depth // rows), _PER_ROW // 2)
    axes = canvas.axes(_LEFT, top, canvas.width - _LEFT - _RIGHT, _STRIP * rows)
    axes.set(xlim=(0, per_row), ylim=(rows, 0))
    axes.axis("off")
    for layer in range(rule.depth):
        row, column = divmod(layer, per_row)
        for offset, ink in zip((0, 0.34), _layer_inks(rule, layer), strict=True):
            box = Rectangle((column + 0.05, row + offset), 0.9, 0.3, color=_INK[ink], linewidth=0)
            axes.add_patch(box)
        axes.text(column + 0.5, row + 0.77, str(layer), fontsize=6, color=_QUIET, ha="center", va="center")
    for row in range(rows):
        for offset, name in ((0.15, "prompt"), (0.49, "generated")):
            place = top + _STRIP * (row + offset)
            canvas.text(_LEFT - 0.06, place, name, fontsize=7, color=_QUIET, ha="right", va="center")


def _layer_inks(rule: Rule, layer: int) -> tuple[str, str]:
    if rule.window is None or layer in rule.full_layers:
        return "full", "full"
    return "window", "decode" if layer in rule.fa_decode_layers else "window"


def _legend(canvas: _Canvas, rule: Rule) -> None:
    """Only what is in the picture, along its lower edge."""
    shown = {ink for layer in range(rule.depth) for ink in _layer_inks(rule, layer)}
    if "window" in shown:
        shown |= {"hidden"} | ({"sinks"} if rule.keep_first else set())
    left, top = _LEFT, canvas.height - 0.3
    for ink in (ink for ink in _LEGEND if ink in shown):
        canvas.text(left, top, "■", color=_INK[ink], fontsize=11, va="center")
        canvas.text(left + 0.17, top, _LEGEND[ink], fontsize=8.5, color=_QUIET, va="center")
        left += 0.45 + 0.075 * len(_LEGEND[ink])
