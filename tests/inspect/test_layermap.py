"""The layer map's shape and its fallback; the pictures themselves are in the test that shows one."""

import io
import sys
from itertools import product

import pytest

from swaa_convert.layermap import describe_layers, render_layer_map

DEPTHS = (1, 4, 10, 28, 36, 48, 60, 61, 80, 126, 1000)
ODD_28 = """\
  layer      0          10         20
  prompt     ░█░█░█░█░█ ░█░█░█░█░█ ░█░█░█░█
  generated  ████░█░█░█ ░█░█░█░█░█ ░█░█░█░█
             █ every earlier token   ░ window (and sinks)"""


def test_odd_layers_of_28() -> None:
    assert render_layer_map(range(1, 28, 2), 28, [0, 2], unicode=True) == ODD_28


@pytest.mark.parametrize(("depth", "unicode"), list(product(DEPTHS, (True, False))))
def test_every_layer_is_drawn_once_within_80_columns(depth: int, unicode: bool) -> None:
    lines = render_layer_map(range(0, depth, 3), depth, (), unicode=unicode).splitlines()
    drawn = "".join(line[11:] for line in lines[:-1] if line.startswith("  prompt")).replace(" ", "")
    full, windowed = ("█", "░") if unicode else ("#", ".")
    assert max(map(len, lines)) <= 80
    assert drawn == "".join(windowed if layer % 3 else full for layer in range(depth))


def test_ascii_where_standard_output_has_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert render_layer_map([1], 4, ()).isascii()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert "░█░░" in render_layer_map([1], 4, ())


def test_a_legend_names_only_what_is_drawn() -> None:
    assert "window" not in render_layer_map(range(4), 4, ())


WORDS = [
    (range(1, 36, 2), "1, 3, 5, ... 35"),
    ([0, 4, 8], "0, 4, 8"),
    ([0, 1, 2, 4, 8, 16], "0, 1, 2, 4, 8, 16"),
    ([], "none"),
]


@pytest.mark.parametrize(("layers", "words"), WORDS)
def test_layers_in_words(layers: list[int], words: str) -> None:
    assert describe_layers(layers) == words
