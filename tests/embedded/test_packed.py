"""Packed rows: several sequences in one row, told apart by their position_ids."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.support.embed import FAMILIES, Zoo, logits, prompt
from tests.support.oracle import assert_close, from_position, no_query

RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "every layer windowed": {"full_layers": ()},
    "no sinks": {"full_layers": (), "keep_first": 0},
    "sinks past the window": {"full_layers": (), "keep_first": 20},
    "sinks past the block": {"full_layers": (), "keep_first": 100},
    "window of one": {"full_layers": (), "window": 1},
    "no FA decode": {"full_layers": (), "fa_decode": False},
}
# Rows of 150: short ones together, ones that cross a block's edge, one alone.
PACKINGS = ([30, 50, 70], [1, 4, 5, 60, 80], [64, 64, 22], [149, 1], [150])
recipes = pytest.mark.parametrize("recipe", RECIPES)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


def _pack(*packings: list[int]) -> tuple[list[list[list[int]]], dict[str, torch.Tensor]]:
    """Rows of sequences, and the inputs that hold them."""
    rows = [[prompt(length, seed) for seed, length in enumerate(packing)] for packing in packings]
    ids = torch.tensor([sum(row, []) for row in rows])
    positions = torch.tensor([[p for length in packing for p in range(length)] for packing in packings])
    return rows, {"input_ids": ids, "position_ids": positions}


def _assert_rows(oracle: Any, actual: torch.Tensor, rows: list[list[list[int]]], dense_from: int) -> None:
    """dense_from: an index in the row."""
    for output, row in zip(actual, rows, strict=True):
        start = 0
        for ids in row:
            part = output[start : start + len(ids)]
            assert_close(part, oracle.logits(ids, from_position(max(dense_from - start, 0))))
            start += len(ids)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@recipes
@backends
def test_one_row(zoo: Zoo, backend: str, recipe: str, packing: list[int]) -> None:
    rows, inputs = _pack(packing)
    actual = logits(zoo.model(backend=backend, **RECIPES[recipe]), **inputs)
    _assert_rows(zoo.oracle(**RECIPES[recipe]), actual, rows, 1000)


@recipes
@backends
def test_rows_of_different_packings(zoo: Zoo, backend: str, recipe: str) -> None:
    rows, inputs = _pack(*PACKINGS)
    actual = logits(zoo.model(backend=backend, **RECIPES[recipe]), **inputs)
    _assert_rows(zoo.oracle(**RECIPES[recipe]), actual, rows, 1000)


@backends
def test_dense_queries_stay_in_their_sequence(zoo: Zoo, backend: str) -> None:
    rows, inputs = _pack(*PACKINGS)
    actual = logits(zoo.model(backend=backend), **inputs, dense_from=100)
    _assert_rows(zoo.oracle(), actual, rows, 100)


@pytest.mark.parametrize("family", FAMILIES)
def test_families(zoo: Zoo, family: str) -> None:
    rows, inputs = _pack(*PACKINGS)
    _assert_rows(zoo.oracle(family), logits(zoo.model(family), **inputs), rows, 1000)


@backends
def test_sequences_within_the_window(zoo: Zoo, backend: str) -> None:
    rows, inputs = _pack([3, 3, 2], [1, 1, 6])
    actual = logits(zoo.model(backend=backend), **inputs)
    _assert_rows(zoo.oracle(), actual, rows, 1000)


def test_one_line_of_positions_for_all_rows(zoo: Zoo) -> None:
    """position_ids of batch size 1 hold for every row."""
    first, inputs = _pack([30, 50, 70])
    ids = torch.cat([inputs["input_ids"], inputs["input_ids"].flip(1)])
    actual = logits(zoo.model(), ids, position_ids=inputs["position_ids"])
    expected = logits(zoo.model(), ids, position_ids=inputs["position_ids"].expand(2, -1))
    assert torch.equal(actual, expected)
    _assert_rows(zoo.oracle(), actual[:1], first, 1000)


def test_packed_rows_and_a_cache_are_refused(zoo: Zoo) -> None:
    _, inputs = _pack([30, 50])
    with pytest.raises(ValueError, match="packed position_ids"):
        logits(zoo.model(), **inputs, past_key_values=DynamicCache())


def test_use_cache_makes_none_for_packed_rows(zoo: Zoo) -> None:
    rows, inputs = _pack([30, 50, 70])
    actual = logits(zoo.model(fa_decode=False), **inputs, use_cache=True)
    _assert_rows(zoo.oracle(fa_decode=False), actual, rows, 1000)


def test_explicit_positions_are_not_packed(zoo: Zoo) -> None:
    ids = prompt(100)
    positions = torch.arange(100)[None]
    assert torch.equal(logits(zoo.model(), [ids], position_ids=positions), logits(zoo.model(), [ids]))
    assert_close(logits(zoo.model(), [ids])[0], zoo.oracle().logits(ids, no_query))
