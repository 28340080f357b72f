"""Generation with each family, token for token."""

from typing import Any

import pytest
import torch

from tests.families.matrix import each, in_turn
from tests.support.embed import CACHE, VERSION, Zoo, early_exit_is_broken, greedy, one, pad_left, prompt
from tests.support.oracle import Oracle

RELEASING: dict[str, Any] = {"full_layers": (1,), "fa_decode": False}
fa_decode = pytest.mark.parametrize("fa_decode", [True, False])


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@fa_decode
@each()
def test_one_prompt(zoo: Zoo, family: str, fa_decode: bool, backend: str) -> None:
    ids, oracle = prompt(80), zoo.oracle(family, fa_decode=fa_decode)
    assert greedy(zoo.model(family, backend, fa_decode=fa_decode), ids, 10) == [oracle.greedy(ids, 10)]


@fa_decode
@each()
def test_a_left_padded_batch(zoo: Zoo, family: str, fa_decode: bool) -> None:
    rows, oracle = [prompt(length, length) for length in (1, 8, 40, 70)], zoo.oracle(family, fa_decode=fa_decode)
    actual = greedy(zoo.model(family, fa_decode=fa_decode), pad_left(rows), 8)
    assert actual == [oracle.greedy(row, 8) for row in rows]


@each()
def test_windowed_layers_release_their_memory(zoo: Zoo, family: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True}
    output = zoo.model(family, **RELEASING).generate(one(prompt(80)), **options)
    kept = [layer.keys.shape[2] for layer in output[CACHE].layers]
    assert kept == [10, 84, 10, 10]


def _static(model: Any, oracle: Oracle) -> None:
    _equal(model, oracle, prompt(70), cache_implementation="static")


def _no_cache(model: Any, oracle: Oracle) -> None:
    _equal(model, oracle, prompt(70), use_cache=False)


def _beams(model: Any, oracle: Oracle) -> None:
    options: dict[str, Any] = {"num_beams": 3, "do_sample": False, "max_new_tokens": 10}
    ids = prompt(70)
    assert torch.equal(model.generate(one(ids), **options), oracle.generate(ids, **options))


def _sampling(model: Any, oracle: Oracle) -> None:
    options: dict[str, Any] = {"do_sample": True, "top_k": 40, "max_new_tokens": 10}
    ids = prompt(70)
    torch.manual_seed(5)
    expected = oracle.generate(ids, **options)
    torch.manual_seed(5)
    assert torch.equal(model.generate(one(ids), **options), expected)


def _lookup(model: Any, oracle: Oracle) -> None:
    _equal(model, oracle, (prompt(6) * 12)[:70], prompt_lookup_num_tokens=3)


def _drafts(model: Any, oracle: Oracle) -> None:
    _equal(model, oracle, prompt(70), assistant_model=oracle.stock)


def _early_exit(model: Any, oracle: Oracle) -> None:
    if early_exit_is_broken:
        pytest.skip("refused with this transformers: see tests/embedded/test_assisted.py")
    if model.config.model_type == "swaa_exaone4":
        pytest.skip("the stock model runs all its layers whatever the draft asks for")
    _equal(model, oracle, prompt(70), assistant_early_exit=2)


def _chunks(model: Any, oracle: Oracle) -> None:
    if VERSION[:2] == (5, 2):
        pytest.skip("refused with this transformers")
    _equal(model, oracle, prompt(70), prefill_chunk_size=9)


def _embeddings(model: Any, oracle: Oracle) -> None:
    ids = prompt(70)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(one(ids))
    assert greedy(model, {"inputs_embeds": embeds}, 8) == [oracle.greedy(ids, 8)]


def _equal(model: Any, oracle: Oracle, ids: list[int], **options: Any) -> None:
    # Drafts may overshoot by a token before 5.20.
    assert [row[:8] for row in greedy(model, ids, 8, **options)] == [oracle.greedy(ids, 8)]


WAYS = {
    "static cache": _static,
    "no cache": _no_cache,
    "beams": _beams,
    "sampling": _sampling,
    "prompt lookup": _lookup,
    "drafts": _drafts,
    "early exit": _early_exit,
    "chunks": _chunks,
    "embeddings": _embeddings,
}


@in_turn(list(WAYS))
def test_ways_to_generate(zoo: Zoo, family: str, case: str) -> None:
    for recipe in ({}, RELEASING):
        oracle = zoo.oracle(family, **recipe)
        WAYS[case](zoo.model(family, **recipe), oracle)
