"""What the picture shows, before it is drawn: the kinds of layers, and the mask of each in coarse cells."""

from dataclasses import dataclass
from itertools import pairwise

from swaa_convert.inspect.figures import Rule

CELLS = 400


@dataclass(frozen=True)
class Kind:
    """Layers that see the same: their name and their numbers."""

    title: str
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Sketch:
    """The lengths that are drawn, in tokens: a prompt of four windows, and some generated tokens."""

    prompt: int
    total: int

    @classmethod
    def of(cls, rule: Rule) -> "Sketch":
        """At the repo's own proportions."""
        prompt = 4 * (rule.window or 1024)
        return cls(prompt, prompt + max(prompt // 5, 1))


def kinds(rule: Rule) -> list[Kind]:
    """The kinds of layers that a model has, windowed ones first."""
    plain = tuple(layer for layer in rule.windowed_layers if layer not in rule.fa_decode_layers)
    found = [
        Kind("windowed, with FA decode", rule.fa_decode_layers),
        Kind("windowed", plain),
        Kind("full attention", rule.full_layers),
    ]
    return [kind for kind in found if kind.layers]


def mask_cells(rule: Rule, layer: int, sketch: Sketch, cells: int = CELLS) -> list[list[str]]:
    """The mask of one layer, sampled from the rule: a row per query, a column per key.

    A cell says why its key is seen (window, sinks, decode, full); "hidden" if it is not; "" for the future.
    """
    columns = [cell * sketch.total // cells for cell in range(cells)]
    ends = [end - 1 for _, end in pairwise([*columns, sketch.total])]
    queries = [max(first, last) for first, last in zip(columns, ends, strict=True)]
    return [[_cell(rule, layer, query, key, sketch.prompt) for key in columns] for query in queries]


def _cell(rule: Rule, layer: int, query: int, key: int, prompt: int) -> str:
    """Sampled at a cell's first key, so that even one sink shows."""
    if key > query:
        return ""
    if not rule.attends(layer, query, key, prompt):
        return "hidden"
    if rule.window is None or layer in rule.full_layers:
        return "full"
    if query - key < rule.window:
        return "window"
    return "sinks" if key < rule.keep_first else "decode"
