"""One cache over several calls, and the eviction of keys that no later query can see."""

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from tests.support.embed import (
    CACHE,
    VERSION,
    Zoo,
    drafts_onto_filled_caches_are_broken,
    early_exit_is_broken,
    greedy,
    logits,
    one,
    pad_left,
    prompt,
    refused_if,
)
from tests.support.oracle import Dense, assert_close, from_position

RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "no sinks": {"full_layers": (), "fa_decode": False, "keep_first": 0},
    "window of one": {"full_layers": (), "fa_decode": False, "window": 1},
    "window of one, no sinks": {"full_layers": (), "fa_decode": False, "window": 1, "keep_first": 0},
    "sinks past the window": {"full_layers": (), "fa_decode": False, "keep_first": 20},
    "dense tail": {"fa_tail": 3},
}
EVICTING = [name for name, recipe in RECIPES.items() if recipe.get("fa_decode") is False]
recipes = pytest.mark.parametrize("recipe", RECIPES)
evicting = pytest.mark.parametrize("recipe", EVICTING)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


def _cached(model: Any, ids: list[list[int]], chunks: list[int], **options: Any) -> torch.Tensor:
    """Logits of forward passes over chunks of the rows with one cache."""
    options.setdefault("past_key_values", DynamicCache())
    parts = torch.tensor(ids).split(chunks, dim=1)
    return torch.cat([logits(model, part, use_cache=True, **options) for part in parts], dim=1)


@pytest.mark.parametrize("chunks", [[70, 1, 1, 1, 1, 1, 1, 4], [1] * 20 + [60], [3, 7, 1, 64, 5], [80]], ids=str)
@recipes
@backends
def test_chunks_of_any_size(zoo: Zoo, backend: str, recipe: str, chunks: list[int]) -> None:
    """How a sequence is cut up changes nothing, wherever dense queries begin."""
    ids, oracle = prompt(80), zoo.oracle(**RECIPES[recipe])
    model = zoo.model(backend=backend, **RECIPES[recipe])
    for dense_from in (0, 5, 72, 80):
        actual = _cached(model, [ids], chunks, dense_from=dense_from)
        assert_close(actual[0], oracle.logits(ids, from_position(dense_from)))


@recipes
def test_the_models_own_cache(zoo: Zoo, recipe: str) -> None:
    """Without a cache passed in, the first pass makes the right one."""
    ids, model = one(prompt(80)), zoo.model(**RECIPES[recipe])
    with torch.no_grad():
        first = model(ids[:, :50], dense_from=60)
        second = model(ids[:, 50:], **{CACHE: first[CACHE]}, dense_from=60)
    expected = zoo.oracle(**RECIPES[recipe]).logits(ids[0].tolist(), from_position(60))
    assert_close(torch.cat([first.logits, second.logits], dim=1)[0], expected)


def test_a_cached_pass_without_dense_from_is_prompt(zoo: Zoo) -> None:
    ids = prompt(80)
    assert_close(_cached(zoo.model(), [ids], [60, 1, 19])[0], zoo.oracle().logits(ids))


def test_dense_from_per_row_over_a_cache(zoo: Zoo) -> None:
    rows, starts = [prompt(80, 1), prompt(80, 2), prompt(80, 3)], [0, 66, 90]
    actual = _cached(zoo.model(), rows, [60, 10, 10], dense_from=torch.tensor(starts))
    for output, ids, start in zip(actual, rows, starts, strict=True):
        assert_close(output, zoo.oracle().logits(ids, from_position(start)))


@recipes
@backends
def test_a_static_cache(zoo: Zoo, backend: str, recipe: str) -> None:
    ids, model = prompt(80), zoo.model(backend=backend, **RECIPES[recipe])
    cache = StaticCache(config=model.config, max_cache_len=100)
    actual = _cached(model, [ids], [60, 5, 1, 14], past_key_values=cache, dense_from=62)
    assert_close(actual[0], zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(62)))


@recipes
def test_several_turns(zoo: Zoo, recipe: str) -> None:
    """Answers of earlier turns stay as they were generated; what is new in the prompt is prompt."""
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    cache, text, answers = DynamicCache(), [], []
    for turn, length in enumerate((40, 30, 5)):
        text += (prompt(6, seed=turn) * length)[:length]
        dense = _either(oracle.after(text), answers)
        expected = oracle.greedy(text, 9, dense)
        assert greedy(model, text, 9, past_key_values=cache) == [expected]
        # The last token was never run through the model: the next turn reads it as prompt.
        answers.append(range(max(len(text) - oracle.fa_tail, 0), len(text) + 8))
        text += expected


def _either(dense: Dense, ranges: list[range]) -> Dense:
    earlier = list(ranges)
    return lambda position: dense(position) or any(position in part for part in earlier)


@recipes
def test_a_turn_after_one_with_drafts(zoo: Zoo, recipe: str) -> None:
    model, oracle, text = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe]), (prompt(6) * 7)[:40]
    cache = DynamicCache()
    answer = greedy(model, text, 9, past_key_values=cache, prompt_lookup_num_tokens=3)[0]
    # A draft that is accepted whole may add one token too many in older versions.
    assert answer == oracle.greedy(text, len(answer))
    dense = range(max(40 - oracle.fa_tail, 0), 39 + len(answer))
    text += answer + prompt(20, 2)
    expected = oracle.greedy(text, 9, _either(oracle.after(text), [dense]))
    assert greedy(model, text, 9, past_key_values=cache) == [expected]


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 2}], ids=str)
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode"])
def test_drafts_onto_a_filled_cache(zoo: Zoo, recipe: str, options: dict[str, Any]) -> None:
    model, oracle, text = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe]), (prompt(6) * 12)[:70]
    cache = DynamicCache()
    logits(model, one(text[:41]), past_key_values=cache, use_cache=True)
    broken = drafts_onto_filled_caches_are_broken or (early_exit_is_broken and "assistant_early_exit" in options)
    with refused_if(broken, NotImplementedError, "filled cache|exit early"):
        assert greedy(model, text, 9, past_key_values=cache, **options) == [oracle.greedy(text, 9)]


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode", "dense tail"])
def test_several_turns_of_a_padded_batch(zoo: Zoo, recipe: str) -> None:
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    rows = [prompt(5, 1), prompt(40, 2)]
    inputs, cache = pad_left(rows), DynamicCache()
    first = model.generate(**inputs, **{CACHE: cache}, max_new_tokens=9, do_sample=False)
    more = torch.tensor([prompt(20, 3), prompt(20, 4)])
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 29, dtype=torch.long)], dim=1)
    second = {"input_ids": torch.cat([first, more], dim=1), "attention_mask": mask}
    actual = greedy(model, second, 9, past_key_values=cache)
    for row, added, answer, output in zip(rows, more.tolist(), first[:, 40:].tolist(), actual, strict=True):
        assert answer == oracle.greedy(row, 9)
        text = row + answer + added
        tail = max(len(row) - oracle.fa_tail, 0)
        assert output == oracle.greedy(text, 9, _either(oracle.after(text), [range(tail, len(row) + 8)]))


@pytest.mark.parametrize("chunk", [1, 7, 29, 64])
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed, no FA decode"])
def test_chunked_prefill_onto_a_filled_cache(zoo: Zoo, recipe: str, chunk: int) -> None:
    model, oracle, ids = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe]), prompt(70)
    cache = DynamicCache()
    logits(model, one(ids[:40]), past_key_values=cache, use_cache=True)
    with refused_if(VERSION < (5, 21), NotImplementedError, "chunked prefill onto a filled cache"):
        assert greedy(model, ids, 8, past_key_values=cache, prefill_chunk_size=chunk) == [oracle.greedy(ids, 8)]


@recipes
def test_a_shared_prefix(zoo: Zoo, recipe: str) -> None:
    """A prompt's cache, copied for each of its continuations."""
    model, oracle, prefix = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe]), prompt(50)
    cache = DynamicCache()
    logits(model, one(prefix), past_key_values=cache, use_cache=True)
    for seed in (1, 2):
        ids = prefix + prompt(20, seed)
        assert greedy(model, ids, 8, past_key_values=copy.deepcopy(cache)) == [oracle.greedy(ids, 8)]


def _after_generating(model: Any, inputs: Any, **options: Any) -> Any:
    inputs = {"input_ids": one(inputs)} if isinstance(inputs, list) else inputs
    options = {"max_new_tokens": 10, "do_sample": False, **options}
    return model.generate(**inputs, return_dict_in_generate=True, **options)[CACHE]


@pytest.mark.parametrize(
    "options",
    [{}, {"prompt_lookup_num_tokens": 3}, {"num_beams": 3}, {"prefill_chunk_size": 9}],
    ids=["greedy", "prompt lookup", "beams", "chunks"],
)
@evicting
def test_what_is_kept(zoo: Zoo, recipe: str, options: dict[str, Any]) -> None:
    """The sinks and the window less the next query's own place; all of it in full layers."""
    model = zoo.model(**RECIPES[recipe])
    layers = _after_generating(model, (prompt(6) * 20)[:70], **options).layers
    swaa = model.config.swaa_config
    kept = swaa["keep_first"] + swaa["sliding_window_size"] - 1
    for index, layer in enumerate(layers):
        count = layer.keys.shape[-2]
        if index in swaa["non_sliding_layers"]:
            assert 79 <= count <= 80
        else:
            # Decoding overwrites in place, and a draft that was checked last may still be there.
            assert kept <= count <= kept + (3 if "prompt_lookup_num_tokens" in options else 1)


def test_what_is_kept_of_padded_rows(zoo: Zoo) -> None:
    layers = _after_generating(zoo.model(fa_decode=False), pad_left([prompt(3), prompt(70), prompt(30)])).layers
    assert [layer.keys.shape[-2] for layer in layers] == [10, 79, 10, 79]
    assert layers[0].values.shape[-2] == 10


def test_fa_decode_keeps_everything(zoo: Zoo) -> None:
    layers = _after_generating(zoo.model(full_layers=(), fa_decode_layers=(1, 2)), prompt(70)).layers
    assert [layer.keys.shape[-2] for layer in layers] == [10, 79, 79, 10]


def test_eviction_frees_the_memory(zoo: Zoo) -> None:
    """What is kept is a copy, not a view of everything."""
    layer = _after_generating(zoo.model(fa_decode=False), prompt(500)).layers[0]
    assert layer.keys.untyped_storage().nbytes() == layer.keys.numel() * 4
    assert layer.values.untyped_storage().nbytes() == layer.values.numel() * 4


@evicting
def test_the_length_counts_what_was_released(zoo: Zoo, recipe: str) -> None:
    assert _after_generating(zoo.model(**RECIPES[recipe]), prompt(70)).get_seq_length() == 79


def test_it_stays_a_dynamic_cache(zoo: Zoo) -> None:
    assert type(_after_generating(zoo.model(fa_decode=False), prompt(20))) is DynamicCache


@recipes
def test_rows_are_reordered_repeated_and_selected(zoo: Zoo, recipe: str) -> None:
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    rows, more = [prompt(60, seed) for seed in range(3)], prompt(10, 9)
    for change, order in (
        (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])), [2, 0, 0]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda cache: cache.batch_select_indices(torch.tensor([2, 1])), [2, 1]),
    ):
        cache = DynamicCache()
        logits(model, rows, past_key_values=cache, use_cache=True)
        change(cache)
        actual = logits(model, [more] * len(order), past_key_values=cache, dense_from=64)
        for output, row in zip(actual, order, strict=True):
            assert_close(output, oracle.logits(rows[row] + more, from_position(64))[60:])


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode", "every layer windowed, no FA decode"])
def test_padded_rows_are_reordered(zoo: Zoo, recipe: str) -> None:
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    rows, more, order = [prompt(4, 1), prompt(60, 2), prompt(33, 3)], prompt(10, 9), [1, 2, 2]
    inputs, cache = pad_left(rows), DynamicCache()
    mask = inputs["attention_mask"]
    ropes = (mask.cumsum(1) - 1).clamp(min=0)
    logits(model, **inputs, position_ids=ropes, past_key_values=cache, use_cache=True)
    cache.reorder_cache(torch.tensor(order))
    mask = torch.cat([mask[order], torch.ones(3, 10, dtype=torch.long)], dim=1)
    ropes = (mask.cumsum(1) - 1)[:, 60:]
    actual = logits(model, [more] * 3, attention_mask=mask, position_ids=ropes, past_key_values=cache, dense_from=64)
    for output, row in zip(actual, order, strict=True):
        ids = rows[row] + more
        assert_close(output, oracle.logits(ids, from_position(len(ids) - 6))[-10:])


@pytest.mark.parametrize("length", [5, 9, 60])
@recipes
def test_crop_takes_back_what_was_just_added(zoo: Zoo, recipe: str, length: int) -> None:
    """As assisted decoding does: recording, then a negative crop."""
    model, oracle = zoo.model(**RECIPES[recipe]), zoo.oracle(**RECIPES[recipe])
    ids, wrong, more = prompt(length), prompt(6, 5), prompt(8, 9)
    cache = DynamicCache()
    logits(model, [ids], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        getattr(layer, "activate_past_recording", lambda: None)()
    logits(model, [wrong], past_key_values=cache, dense_from=length)
    cache.crop(-4)
    actual = logits(model, [more], past_key_values=cache, dense_from=length)
    text = ids + wrong[:2] + more
    assert_close(actual[0], oracle.logits(text, from_position(length))[-8:])


@evicting
def test_crop_refuses_what_was_released(zoo: Zoo, recipe: str) -> None:
    cache = _after_generating(zoo.model(**RECIPES[recipe]), prompt(70))
    with pytest.raises(ValueError, match="released"):
        cache.crop(-20)


def test_crop_before_anything_was_released(zoo: Zoo) -> None:
    model, ids = zoo.model(full_layers=(), fa_decode=False), prompt(8)
    cache = DynamicCache()
    logits(model, [ids], past_key_values=cache, use_cache=True)
    cache.crop(-5)
    actual = logits(model, [prompt(20, 3)], past_key_values=cache)
    expected = zoo.oracle(full_layers=(), fa_decode=False).logits(ids[:3] + prompt(20, 3))
    assert_close(actual[0], expected[3:])


def test_a_reset_cache_starts_anew(zoo: Zoo) -> None:
    model, ids = zoo.model(fa_decode=False), prompt(40)
    cache = DynamicCache()
    logits(model, [prompt(30, 3)], past_key_values=cache, use_cache=True)
    if "reset" not in vars(DynamicLayer):
        # Stock layers of these versions keep their length, and would differ from ours.
        with pytest.raises(NotImplementedError, match="make a new one"):
            cache.reset()
        return
    cache.reset()
    assert torch.equal(logits(model, [ids], past_key_values=cache), logits(model, [ids], use_cache=True))


@pytest.mark.skipif("reset" not in vars(DynamicLayer), reason="stock layers of these versions keep their length")
@pytest.mark.parametrize("other", [{"window": 12}, {"fa_decode": True}, {"full_layers": (0, 1)}], ids=str)
def test_an_emptied_cache_serves_another_model(zoo: Zoo, other: dict[str, Any]) -> None:
    """Each gets the layers of its own rule, whichever repo's the last ones were."""
    models = zoo.model(fa_decode=False, full_layers=()), zoo.model(**{"fa_decode": False, "full_layers": (), **other})
    cache, ids = DynamicCache(), prompt(40)
    for model in (*models, models[0]):
        expected = _cached(model, [ids], [30, 1, 1, 8])
        assert torch.equal(_cached(model, [ids], [30, 1, 1, 8], past_key_values=cache), expected)
        cache.reset()


def test_a_cache_that_another_window_filled_is_refused(zoo: Zoo) -> None:
    """transformers may share code between models, so that their layers are of one class."""
    model, cache = zoo.model(fa_decode=False), DynamicCache()
    logits(model, [prompt(40)], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        if hasattr(layer, "rule"):
            layer.rule = replace(layer.rule, window=layer.rule.window + 1)
    with pytest.raises(ValueError, match="filled by a model of another window"):
        logits(model, [prompt(5)], past_key_values=cache, use_cache=True)


def test_an_evicting_cache_can_be_pickled(zoo: Zoo) -> None:
    model, ids, more = zoo.model(fa_decode=False), prompt(40), prompt(9, 2)
    cache = DynamicCache()
    logits(model, [ids], past_key_values=cache, use_cache=True)
    again = pickle.loads(pickle.dumps(cache))
    expected = logits(model, [more], past_key_values=cache)
    assert torch.equal(logits(model, [more], past_key_values=again), expected)


def test_a_quantized_cache(zoo: Zoo) -> None:
    pytest.importorskip("optimum.quanto")
    ids = prompt(70)
    tokens = greedy(zoo.model(), ids, 8, cache_implementation="quantized")
    assert tokens == greedy(zoo.stock(), ids, 8, cache_implementation="quantized") or len(tokens[0]) == 8


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
@recipes
def test_the_older_name_of_the_cache(zoo: Zoo, recipe: str) -> None:
    """What was written before version 5.24 renamed it goes on giving the same tokens."""
    ids, cache = prompt(60), DynamicCache()
    model = zoo.model(**RECIPES[recipe])
    with torch.no_grad():
        model(one(ids[:40]), past_key_values=cache, use_cache=True)
    output = model.generate(one(ids), past_key_values=cache, max_new_tokens=8, do_sample=False)
    assert output[0, 60:].tolist() == zoo.oracle(**RECIPES[recipe]).greedy(ids, 8)
