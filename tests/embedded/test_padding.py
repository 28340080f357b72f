"""Padded batches: every row is what it would be alone."""

from typing import Any

import pytest
import torch

from tests.support.embed import (
    FAMILIES,
    VERSION,
    Zoo,
    early_exit_is_broken,
    greedy,
    logits,
    pad_left,
    pad_right,
    prompt,
    refused_if,
)
from tests.support.oracle import assert_close, from_position

# Shorter than the window, equal to it, past a block.
LENGTHS = (1, 5, 8, 40, 70, 130)
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "no sinks": {"full_layers": (), "keep_first": 0, "fa_decode": False},
    "sinks past the window": {"full_layers": (), "keep_first": 20, "fa_decode": False},
    "window of one": {"full_layers": (), "window": 1, "fa_decode": False},
    "dense tail": {"fa_tail": 3},
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


def _rows(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    return [prompt(length, seed=length) for length in lengths]


@recipes
@backends
def test_left_padded_generation(zoo: Zoo, backend: str, recipe: str) -> None:
    oracle = zoo.oracle(**RECIPES[recipe])
    actual = greedy(zoo.model(backend=backend, **RECIPES[recipe]), pad_left(_rows()), 12)
    assert actual == [oracle.greedy(row, 12) for row in _rows()]


@pytest.mark.parametrize("options", [{"use_cache": False}, {"cache_implementation": "static"}], ids=str)
@recipes
def test_left_padded_generation_with_other_caches(zoo: Zoo, recipe: str, options: dict[str, Any]) -> None:
    oracle = zoo.oracle(**RECIPES[recipe])
    actual = greedy(zoo.model(**RECIPES[recipe]), pad_left(_rows()), 12, **options)
    assert actual == [oracle.greedy(row, 12) for row in _rows()]


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_families(zoo: Zoo, family: str) -> None:
    oracle = zoo.oracle(family)
    assert greedy(zoo.model(family), pad_left(_rows()), 8) == [oracle.greedy(row, 8) for row in _rows()]


@recipes
def test_left_padded_short_prompts(zoo: Zoo, recipe: str) -> None:
    """All within the window, and past it while generating."""
    rows, oracle = _rows((1, 3, 6)), zoo.oracle(**RECIPES[recipe])
    assert greedy(zoo.model(**RECIPES[recipe]), pad_left(rows), 20) == [oracle.greedy(row, 20) for row in rows]


@pytest.mark.parametrize("chunk", [1, 9, 43, 64, 129])
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode", "dense tail"])
def test_left_padded_chunked_prefill(zoo: Zoo, recipe: str, chunk: int) -> None:
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    with refused_if(VERSION < (5, 0), NotImplementedError, "chunked prefill"):
        actual = greedy(model, pad_left(_rows()), 8, prefill_chunk_size=chunk)
        assert actual == [oracle.greedy(row, 8) for row in _rows()]


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode", "every layer windowed, no FA decode"])
def test_left_padded_beams(zoo: Zoo, recipe: str) -> None:
    options = {"num_beams": 3, "do_sample": False, "max_new_tokens": 10}
    rows, oracle = _rows((4, 70)), zoo.oracle(**RECIPES[recipe])
    output = zoo.model(**RECIPES[recipe]).generate(**pad_left(rows), **options)[:, 70:]
    for tokens, row in zip(output, rows, strict=True):
        assert torch.equal(tokens, oracle.generate(row, **options)[0, len(row) :])


@recipes
@backends
def test_left_padded_forward(zoo: Zoo, backend: str, recipe: str) -> None:
    batch = pad_left(_rows())
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    actual = logits(zoo.model(backend=backend, **RECIPES[recipe]), **batch, position_ids=positions, dense_from=100)
    for output, row in zip(actual, _rows(), strict=True):
        dense = from_position(100 - 130 + len(row))
        assert_close(output[-len(row) :], zoo.oracle(**RECIPES[recipe]).logits(row, dense))


@recipes
@backends
def test_right_padded_forward(zoo: Zoo, backend: str, recipe: str) -> None:
    batch, oracle = pad_right(_rows()), zoo.oracle(**RECIPES[recipe])
    starts = [len(row) // 2 for row in _rows()]
    model = zoo.model(backend=backend, **RECIPES[recipe])
    actual = logits(model, **batch, dense_from=torch.tensor(starts))
    for output, row, start in zip(actual, _rows(), starts, strict=True):
        assert_close(output[: len(row)], oracle.logits(row, from_position(start)))


@recipes
@backends
def test_masks_with_holes(zoo: Zoo, backend: str, recipe: str) -> None:
    """Masked tokens in the middle take no position: neither window nor sinks count them."""
    ids = torch.tensor([prompt(150, 1), prompt(150, 2)])
    mask = torch.ones_like(ids)
    mask[0, 1:60:2] = 0
    mask[0, 80:120] = 0
    mask[1, 0] = mask[1, 70:72] = mask[1, 149] = 0
    model, oracle = zoo.model(backend=backend, **RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    actual = logits(model, ids, attention_mask=mask, dense_from=100)
    for output, row, real in zip(actual, ids, mask.bool(), strict=True):
        dense = from_position(int(real[:100].sum()))
        rope = real.nonzero().flatten().tolist()
        assert_close(output[real], oracle.logits(row[real].tolist(), dense, rope=rope))


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode"])
def test_generation_after_a_mask_with_holes(zoo: Zoo, recipe: str) -> None:
    ids = torch.tensor([prompt(90, 1)])
    mask = torch.ones_like(ids)
    mask[0, 3:40:3] = mask[0, 85] = 0
    real = ids[mask.bool()].tolist()
    inputs = {"input_ids": ids, "attention_mask": mask}
    assert greedy(zoo.model(**RECIPES[recipe]), inputs, 10) == [zoo.oracle(**RECIPES[recipe]).greedy(real, 10)]


def test_a_mask_of_ones_is_no_mask(zoo: Zoo) -> None:
    ids = torch.tensor([prompt(90)])
    for recipe in RECIPES.values():
        model = zoo.model(**recipe)
        assert torch.equal(logits(model, ids, attention_mask=torch.ones_like(ids)), logits(model, ids))


def test_padding_stays_finite(zoo: Zoo) -> None:
    batch = pad_left(_rows())
    batch["attention_mask"][0] = 0
    for backend in ("eager", "sdpa"):
        assert logits(zoo.model(backend=backend), **batch).isfinite().all()


@pytest.mark.parametrize("fa_decode", [True, False])
def test_one_padded_row_with_drafts(zoo: Zoo, fa_decode: bool) -> None:
    """Assisted decoding takes one row, which may be padded."""
    row = (prompt(7) * 10)[:60]
    inputs = {"input_ids": torch.tensor([[256] * 9 + row]), "attention_mask": torch.tensor([[0] * 9 + [1] * 60])}
    model, expected = zoo.model(fa_decode=fa_decode), [zoo.oracle(fa_decode=fa_decode).greedy(row, 12)]
    assert greedy(model, inputs, 12, prompt_lookup_num_tokens=3) == expected
    with refused_if(early_exit_is_broken, NotImplementedError, "exit early"):
        assert greedy(model, inputs, 12, assistant_early_exit=2) == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=str)
@pytest.mark.parametrize("cache", [{}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("tail", [1, 2, 3, 5, 40])
def test_padding_in_a_dense_tail_does_not_count(
    zoo: Zoo, tail: int, cache: dict[str, Any], options: dict[str, Any]
) -> None:
    """The second turn of a batch: each row's padding stands between its turns."""
    recipe: dict[str, Any] = {"full_layers": (), "fa_tail": tail}
    first, second = [prompt(30), prompt(25, seed=1)], [prompt(2, seed=2), prompt(5, seed=3)]
    batch = pad_left(second)
    ids = torch.cat([pad_left(first)["input_ids"], batch["input_ids"]], dim=1)
    mask = torch.cat([pad_left(first)["attention_mask"], batch["attention_mask"]], dim=1)
    options = {"max_new_tokens": 10, "do_sample": False, **options}
    actual = zoo.model(**recipe).generate(ids, attention_mask=mask, **options, **cache)
    for row, ids_of in enumerate(zip(first, second, strict=True)):
        whole = [*ids_of[0], *ids_of[1]]
        expected = zoo.oracle(**recipe).generate(whole, **options)
        assert actual[row, ids.shape[1] :].tolist() == expected[0, len(whole) :].tolist()
