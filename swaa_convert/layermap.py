"""The layer map: which layers keep full attention, as a picture for the terminal.

One column per layer. The upper line is what reads the prompt, the lower line what generates:

    layer      0          10         20         30
    prompt     ░█░█░█░█░█ ░█░█░█░█░█ ░█░█░█░█░█ ░█░█░█
    generated  ██████████ ██████████ ██████████ ██████
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_GROUP = 10
# Sixty layers, five gaps and the labels fit into 80 columns.
_MOST_PER_ROW = 60
_MARGIN = 2
_LABELS = ("prompt", "generated")
_LABEL_WIDTH = 11


@dataclass(frozen=True)
class _Ink:
    full: str
    windowed: str


_BLOCKS = _Ink(full="█", windowed="░")
_ASCII = _Ink(full="#", windowed=".")


def render_layer_map(
    full: Sequence[int], depth: int, fa_decode: Collection[int], *, unicode: bool | None = None
) -> str:
    """Draw the layers of a model, within 80 columns and without colour.

    Parameters
    ----------
    full:
        The layers that keep full attention, counted from 0.
    depth:
        How many layers the model has.
    fa_decode:
        The layers with FA decode: there, generated tokens see everything.
    unicode:
        Whether to draw with blocks rather than ASCII. None: if standard output can show them.
    """
    ink = _BLOCKS if (_stdout_shows_blocks() if unicode is None else unicode) else _ASCII
    everything = set(full), set(full) | set(fa_decode)
    lines: list[str] = []
    for row in _rows(depth):
        lines.append(_line("layer", _ruler(row)))
        for label, layers in zip(_LABELS, everything, strict=True):
            lines.append(_line(label, _cells(row, layers, ink)))
    return "\n".join([*lines, _line("", _legend(ink, all_full=len(everything[0]) >= depth))])


def describe_layers(layers: Sequence[int]) -> str:
    """Layers in words, shortened where they follow a step: "1, 3, 5, ... 35"."""
    steps = {later - earlier for earlier, later in pairwise(layers)}
    if len(layers) > 5 and len(steps) == 1:
        shown = ", ".join(str(layer) for layer in layers[:3])
        return f"{shown}, ... {layers[-1]}"
    return ", ".join(str(layer) for layer in layers) or "none"


def _stdout_shows_blocks() -> bool:
    try:
        f"{_BLOCKS.full}{_BLOCKS.windowed}".encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _rows(depth: int) -> Iterator[range]:
    """The layers row by row: rows of about the same length, each a whole number of groups."""
    rows = -(-depth // _MOST_PER_ROW) or 1
    length = -(-depth // (rows * _GROUP)) * _GROUP
    for start in range(0, depth, length):
        yield range(start, min(start + length, depth))


def _groups(row: range) -> Iterator[range]:
    for start in range(row.start, row.stop, _GROUP):
        yield range(start, min(start + _GROUP, row.stop))


def _ruler(row: range) -> str:
    return " ".join(str(group.start).ljust(_GROUP) for group in _groups(row))


def _cells(row: range, full: Collection[int], ink: _Ink) -> str:
    def group_cells(group: range) -> str:
        return "".join(ink.full if layer in full else ink.windowed for layer in group)

    return " ".join(group_cells(group) for group in _groups(row))


def _legend(ink: _Ink, *, all_full: bool) -> str:
    full = f"{ink.full} every earlier token"
    return full if all_full else f"{full}   {ink.windowed} window (and sinks)"


def _line(label: str, text: str) -> str:
    return f"{'':{_MARGIN}}{label:{_LABEL_WIDTH}}{text}".rstrip()
