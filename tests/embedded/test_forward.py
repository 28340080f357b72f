"""One forward pass without a cache, against the stock model under the rule."""

from typing import Any

import pytest
import torch

from tests.support.embed import FAMILIES, Zoo, logits, one, prompt
from tests.support.oracle import assert_close, from_position, no_query

BACKENDS = ("eager", "sdpa")
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "one layer windowed": {"full_layers": (0, 1, 3)},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "no sinks": {"keep_first": 0},
    "sinks past the window": {"keep_first": 20, "full_layers": ()},
    "sinks past the prompt": {"keep_first": 500},
    "window of one": {"window": 1, "full_layers": ()},
    "window of one, no sinks": {"window": 1, "keep_first": 0},
    "window past a block": {"window": 70, "full_layers": ()},
    "dense tail": {"fa_tail": 3},
}


@pytest.mark.parametrize("dense_from", [None, 0, 100, 149, 150])
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_recipes(zoo: Zoo, backend: str, recipe: str, dense_from: int | None) -> None:
    ids = prompt(150)
    dense = no_query if dense_from is None else from_position(dense_from)
    actual = logits(zoo.model(backend=backend, **RECIPES[recipe]), [ids], dense_from=dense_from)
    assert_close(actual[0], zoo.oracle(**RECIPES[recipe]).logits(ids, dense))


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 10, 11, 63, 64, 65, 129])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_and_lengths(zoo: Zoo, family: str, backend: str, length: int) -> None:
    ids = prompt(length)
    actual = logits(zoo.model(family, backend), [ids], dense_from=length // 2)
    assert_close(actual[0], zoo.oracle(family).logits(ids, from_position(length // 2)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dense_from_may_differ_between_rows(zoo: Zoo, backend: str) -> None:
    rows, starts = [prompt(100, seed) for seed in range(3)], [0, 55, 100]
    actual = logits(zoo.model(backend=backend), rows, dense_from=torch.tensor(starts))
    for row, ids, start in zip(actual, rows, starts, strict=True):
        assert_close(row, zoo.oracle().logits(ids, from_position(start)))


@pytest.mark.parametrize("length", [1, 5, 8])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_within_the_window_is_the_source_models(zoo: Zoo, family: str, backend: str, length: int) -> None:
    ids = [prompt(length, 1), prompt(length, 2)]
    assert torch.equal(logits(zoo.model(family, backend), ids), logits(zoo.stock(family, backend), ids))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_window_is_the_source_model(zoo: Zoo, family: str, backend: str) -> None:
    ids = [prompt(90)]
    model = zoo.model(family, backend, window=None, keep_first=0, full_layers=None)
    assert torch.equal(logits(model, ids), logits(zoo.stock(family, backend), ids))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_queries_dense_is_the_source_model(zoo: Zoo, family: str, backend: str) -> None:
    ids = [prompt(90)]
    actual = logits(zoo.model(family, backend), ids, dense_from=0)
    assert torch.equal(actual, logits(zoo.stock(family, backend), ids))


@pytest.mark.parametrize("backend", BACKENDS)
def test_embeddings_instead_of_ids(zoo: Zoo, backend: str) -> None:
    model, ids = zoo.model(backend=backend), prompt(90)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(one(ids))
        actual = model(inputs_embeds=embeds, dense_from=80).logits
    assert_close(actual[0], zoo.oracle().logits(ids, from_position(80)))


def test_scaled_positions(zoo: Zoo) -> None:
    """position_ids that start elsewhere move RoPE, not the rule."""
    ids = prompt(80)
    actual = logits(zoo.model(), [ids], position_ids=torch.arange(7, 87)[None])
    assert_close(actual[0], zoo.oracle().logits(ids, rope=range(7, 87)))


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "FA decode in some layers"])
def test_eager_returns_weights_that_obey_the_rule(zoo: Zoo, recipe: str) -> None:
    ids, dense = prompt(70), from_position(60)
    oracle = zoo.oracle(**RECIPES[recipe])
    with torch.no_grad():
        model = zoo.model(backend="eager", **RECIPES[recipe])
        weights = model(one(ids), output_attentions=True, dense_from=60).attentions
    assert len(weights) == 4
    for layer, weight in enumerate(weights):
        assert torch.equal(weight[0] > 0, oracle.mask(layer, 70, dense).expand(4, -1, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_hidden_states_are_returned(zoo: Zoo, backend: str) -> None:
    model, ids = zoo.model(backend=backend), one(prompt(70))
    with torch.no_grad():
        output = model(ids, output_hidden_states=True, logits_to_keep=1)
    assert len(output.hidden_states) == 5
    assert output.logits.shape == (1, 1, 264)


def test_the_models_differ_at_all(zoo: Zoo) -> None:
    """The test models' attention is peaky enough for a wrong mask to show."""
    ids = [prompt(100)]
    stock = logits(zoo.stock(), ids)
    scale = stock.abs().max()
    for recipe in ({}, {"full_layers": ()}, {"full_layers": (0, 1, 3)}, {"keep_first": 0}):
        assert (logits(zoo.model(**recipe), ids) - stock).abs().max() > 0.1 * scale
