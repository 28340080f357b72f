"""Token-for-token generation, against the stock model under the rule without a cache."""

from typing import Any

import pytest
import torch

from tests.support.embed import FAMILIES, VERSION, Zoo, greedy, one, prompt
from tests.support.oracle import assert_close, from_position

BACKENDS = ("eager", "sdpa")
LENGTHS = (1, 5, 8, 40, 130)
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "FA decode in a full layer": {"fa_decode_layers": (0, 1)},
    "no sinks": {"keep_first": 0, "fa_decode": False},
    "sinks past the window": {"keep_first": 20, "full_layers": (), "fa_decode": False},
    "sinks past the prompt": {"keep_first": 500},
    "window of one": {"window": 1, "full_layers": (), "fa_decode": False},
    "window of one, no sinks": {"window": 1, "keep_first": 0, "fa_decode": False},
    "window past a block": {"window": 70, "full_layers": (), "fa_decode": False},
    "dense tail": {"fa_tail": 3},
    "dense tail past the prompt": {"fa_tail": 50, "full_layers": ()},
    "no window": {"window": None, "keep_first": 0, "full_layers": None},
}
CACHES: dict[str, dict[str, Any]] = {
    "dynamic cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_and_lengths(zoo: Zoo, recipe: str, length: int) -> None:
    ids = prompt(length)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 12)
    for backend in BACKENDS:
        assert greedy(zoo.model(backend=backend, **RECIPES[recipe]), ids, 12) == [expected]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_families_and_caches(zoo: Zoo, family: str, backend: str, cache: str) -> None:
    ids = prompt(80)
    assert greedy(zoo.model(family, backend), ids, 12, **CACHES[cache]) == [zoo.oracle(family).greedy(ids, 12)]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    "recipe", ["no FA decode", "every layer windowed, no FA decode", "FA decode in some layers", "dense tail"]
)
def test_recipes_and_caches(zoo: Zoo, recipe: str, cache: str) -> None:
    ids = prompt(80)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 12)
    assert greedy(zoo.model(**RECIPES[recipe]), ids, 12, **CACHES[cache]) == [expected]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode", "dense tail"])
def test_every_steps_logits(zoo: Zoo, recipe: str, cache: str) -> None:
    ids, oracle = prompt(90), zoo.oracle(**RECIPES[recipe])
    output = zoo.model(**RECIPES[recipe]).generate(
        one(ids),
        do_sample=False,
        max_new_tokens=6,
        output_logits=True,
        return_dict_in_generate=True,
        **CACHES[cache],
    )
    expected = oracle.logits(output.sequences[0].tolist(), oracle.after(ids))[89:-1]
    assert_close(torch.cat(output.logits), expected)


@pytest.mark.parametrize("fa_decode", [True, False])
@pytest.mark.parametrize("cache", CACHES)
def test_sampling(zoo: Zoo, cache: str, fa_decode: bool) -> None:
    ids = prompt(70)
    options = {"do_sample": True, "temperature": 0.7, "top_k": 40, "top_p": 0.9, "max_new_tokens": 16}
    torch.manual_seed(5)
    expected = zoo.oracle(fa_decode=fa_decode).generate(ids, **options)
    torch.manual_seed(5)
    assert torch.equal(zoo.model(fa_decode=fa_decode).generate(one(ids), **options, **CACHES[cache]), expected)


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode", "every layer windowed, no FA decode"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("length", [5, 70])
def test_beam_search(zoo: Zoo, recipe: str, cache: str, length: int) -> None:
    ids = prompt(length)
    options = {"num_beams": 4, "do_sample": False, "max_new_tokens": 14, "num_return_sequences": 2}
    expected = zoo.oracle(**RECIPES[recipe]).generate(ids, **options)
    assert torch.equal(zoo.model(**RECIPES[recipe]).generate(one(ids), **options, **CACHES[cache]), expected)


@pytest.mark.parametrize("fa_decode", [True, False])
def test_several_samples_of_one_prompt(zoo: Zoo, fa_decode: bool) -> None:
    ids = prompt(70)
    options = {"do_sample": True, "top_k": 0, "num_return_sequences": 3, "max_new_tokens": 10}
    torch.manual_seed(3)
    expected = zoo.oracle(fa_decode=fa_decode).generate(ids, **options)
    torch.manual_seed(3)
    assert torch.equal(zoo.model(fa_decode=fa_decode).generate(one(ids), **options), expected)


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode", "dense tail"])
@pytest.mark.parametrize("cache", CACHES)
def test_from_embeddings(zoo: Zoo, recipe: str, cache: str) -> None:
    model, ids = zoo.model(**RECIPES[recipe]), prompt(70)
    inputs = {"inputs_embeds": model.get_input_embeddings()(one(ids)).detach()}
    assert greedy(model, inputs, 10, **CACHES[cache]) == [zoo.oracle(**RECIPES[recipe]).greedy(ids, 10)]


def test_from_ids_and_embeddings(zoo: Zoo) -> None:
    """With both, the ids come back in front of what is generated."""
    model, ids = zoo.model(), prompt(70)
    embeds = model.get_input_embeddings()(one(ids)).detach()
    output = model.generate(one(ids), inputs_embeds=embeds, do_sample=False, max_new_tokens=8)
    assert output[0].tolist() == ids + zoo.oracle().greedy(ids, 8)


@pytest.mark.parametrize("dense_from", [0, 30, 72])
def test_dense_from_of_the_callers_choice(zoo: Zoo, dense_from: int) -> None:
    ids = prompt(70)
    expected = zoo.oracle().greedy(ids, 8, from_position(dense_from))
    assert greedy(zoo.model(), ids, 8, dense_from=dense_from) == [expected]


def test_dense_from_per_row(zoo: Zoo) -> None:
    rows, starts = [prompt(70, 1), prompt(70, 2)], [20, 70]
    expected = [zoo.oracle().greedy(row, 8, from_position(start)) for row, start in zip(rows, starts, strict=True)]
    inputs = {"input_ids": torch.tensor(rows)}
    assert greedy(zoo.model(), inputs, 8, dense_from=torch.tensor(starts)) == expected


def test_dense_from_per_row_with_beams(zoo: Zoo) -> None:
    rows = [prompt(70, 1), prompt(70, 2)]
    options = {"num_beams": 3, "do_sample": False, "max_new_tokens": 8}
    expected = torch.cat([zoo.oracle().generate(row, **options) for row in rows])
    actual = zoo.model().generate(torch.tensor(rows), dense_from=torch.tensor([70, 70]), **options)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("chunk", [1, 7, 13, 23, 64, 69, 70, 100])
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode", "dense tail"])
def test_chunked_prefill(zoo: Zoo, recipe: str, chunk: int) -> None:
    """23 and 69 leave a last chunk of one token."""
    ids = prompt(70)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 8)
    assert greedy(zoo.model(**RECIPES[recipe]), ids, 8, prefill_chunk_size=chunk) == [expected]


@pytest.mark.skipif(VERSION == (5, 0), reason="5.0 runs past the end of the static cache that it makes")
@pytest.mark.parametrize("chunk", [7, 23, 64, 100])
def test_chunked_prefill_into_a_static_cache(zoo: Zoo, chunk: int) -> None:
    ids = prompt(70)
    expected = zoo.oracle().greedy(ids, 8)
    assert greedy(zoo.model(), ids, 8, prefill_chunk_size=chunk, cache_implementation="static") == [expected]


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode"])
def test_two_calls_are_alike(zoo: Zoo, recipe: str) -> None:
    """Nothing of one generation is left for the next, of another length."""
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    for length in (70, 9, 70, 33):
        assert greedy(model, prompt(length), 5) == [oracle.greedy(prompt(length), 5)]


def test_streaming(zoo: Zoo) -> None:
    class Collect:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    ids, streamer = prompt(40), Collect()
    greedy(zoo.model(), ids, 6, streamer=streamer)
    assert streamer.tokens == [*ids, *zoo.oracle().greedy(ids, 6), -1]
