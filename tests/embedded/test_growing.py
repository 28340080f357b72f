"""Layers that keep every key: what stock ones hold, without a copy of everything per token."""

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from modeling.swaa_growing import SHARE, SLACK, GrowingLayer
from tests.support.embed import CACHE, Zoo, logits, one, prompt


def _states(draw: random.Random, batch: int, new: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    return torch.randn(batch, 2, new, 4, generator=generator).to(dtype)


def _crop(layer: Any, draw: random.Random) -> None:
    layer.crop(-draw.randint(1, max(layer.get_seq_length() - 1, 1)))


CHANGES: dict[str, Callable[[Any, random.Random], Any]] = {
    "crop": _crop,
    "reorder": lambda layer, draw: layer.reorder_cache(torch.tensor([draw.randrange(2), draw.randrange(2)])),
    "repeat": lambda layer, draw: (layer.batch_repeat_interleave(2), layer.batch_select_indices(torch.tensor([0, 2]))),
    "offload": lambda layer, draw: (layer.offload(), layer.prefetch()),
    "deepcopy": lambda layer, draw: copy.deepcopy(layer),
    "shallow copy": lambda layer, draw: copy.copy(layer),
    "pickle": lambda layer, draw: pickle.loads(pickle.dumps(layer)),
}


def _same(ours: Any, stock: Any) -> None:
    assert torch.equal(ours.keys, stock.keys) and torch.equal(ours.values, stock.values)
    assert ours.get_seq_length() == stock.get_seq_length()


@pytest.mark.parametrize("seed", range(30))
def test_it_holds_what_a_stock_layer_holds(seed: int) -> None:
    """Through any order of tokens, chunks, changes, and modes of autograd."""
    draw, layers = random.Random(seed), [GrowingLayer(), DynamicLayer()]
    held: list[tuple[Tensor, Tensor]] = []
    for _ in range(60):
        mode = draw.choice([torch.no_grad, torch.no_grad, torch.inference_mode, torch.enable_grad])
        name = draw.choice(["token"] * 12 + ["chunk", *CHANGES])
        with mode():
            if name in CHANGES and layers[0].get_seq_length():
                again = draw.randrange(2**31)
                changed = [CHANGES[name](layer, random.Random(again)) for layer in layers]
                if isinstance(changed[0], DynamicLayer):
                    _same(*changed)
                # What was pickled is a stock layer: the one before goes on.
                if isinstance(changed[0], GrowingLayer):
                    layers = changed
            else:
                new = draw.randint(2, 90) if name == "chunk" else 1
                keys, values = _states(draw, 2, new), _states(draw, 2, new)
                outputs = [layer.update(keys, values) for layer in layers]
                assert all(map(torch.equal, *outputs))
            _same(*layers)
            held.append((layers[0].keys, layers[0].keys.clone()))
    assert all(torch.equal(keys, as_they_were) for keys, as_they_were in held)


@torch.no_grad()
def test_a_token_moves_only_itself() -> None:
    layer, draw, past, moves, last = GrowingLayer(), random.Random(0), 5000, 0, 0
    layer.update(_states(draw, 1, past), _states(draw, 1, past))
    for _ in range(400):
        keys, _ = layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
        moves, last = moves + (keys.data_ptr() != last), keys.data_ptr()
    # Memory for 1/256 more: 19 tokens, then 19 more; 32 at least.
    assert moves <= 400 // max(past // SHARE, SLACK) + 1


@pytest.mark.parametrize("past", [1, 300, 5000])
@torch.no_grad()
def test_its_memory_is_little_longer(past: int) -> None:
    layer, draw = GrowingLayer(), random.Random(0)
    for new in (past, 1, 1):
        keys, values = layer.update(_states(draw, 1, new), _states(draw, 1, new))
    for states in (keys, values):
        tokens = states.untyped_storage().nbytes() // (2 * 4 * states.element_size())
        assert past + 2 <= tokens <= past + 2 + max(SLACK, (past + 2) // SHARE)


@torch.no_grad()
def test_nothing_keeps_memory_that_was_left() -> None:
    """Beams, say: the memory before is free when the new one is made, as in a stock layer."""
    layer, draw = GrowingLayer(), random.Random(0)
    for _ in range(3):
        layer.update(_states(draw, 2, 1), _states(draw, 2, 1))
    layer.reorder_cache(torch.tensor([1, 0]))
    assert layer.keys.untyped_storage().nbytes() == layer.keys.numel() * 4
    assert layer._room is None


@torch.no_grad()
def test_copies_of_a_layer_go_their_own_ways() -> None:
    layer, draw = GrowingLayer(), random.Random(0)
    for _ in range(3):
        layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
    other = copy.copy(layer)
    added = [_states(draw, 1, 1), _states(draw, 1, 1)]
    expected = [torch.cat([layer.keys, new], dim=2) for new in added]
    found = [one.update(new, new)[0] for one, new in zip((layer, other), added, strict=True)]
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    "wrong",
    [lambda s: s.expand(3, -1, -1, -1), lambda s: s[:, :1], lambda s: s[..., :3], lambda s: s[0]],
    ids=["batch", "heads", "dimension", "no batch"],
)
@torch.no_grad()
def test_other_shapes_are_refused_as_in_a_stock_layer(wrong: Callable[[Tensor], Tensor]) -> None:
    for layer in (DynamicLayer(), GrowingLayer()):
        states = _states(random.Random(0), 1, 1)
        layer.update(states, states)
        layer.update(states, states)
        with pytest.raises((RuntimeError, IndexError)):
            layer.update(wrong(states), wrong(states))


@torch.no_grad()
def test_fewer_values_than_keys_are_joined_as_in_a_stock_layer() -> None:
    draw, layers = random.Random(0), [GrowingLayer(), DynamicLayer()]
    for keys, values in ((1, 1), (1, 1), (2, 1), (1, 1), (1, 2), (1, 1)):
        states = _states(draw, 1, keys), _states(draw, 1, values)
        assert all(map(torch.equal, *(layer.update(*states) for layer in layers)))


@torch.no_grad()
def test_another_dtype_is_joined_as_in_a_stock_layer() -> None:
    draw, layers = random.Random(0), [GrowingLayer(), DynamicLayer()]
    for dtype in (torch.bfloat16, torch.bfloat16, torch.float32, torch.bfloat16):
        states = _states(draw, 1, 1, dtype)
        ours, stock = (layer.update(states, states)[0] for layer in layers)
        assert torch.equal(ours, stock) and ours.dtype == stock.dtype


def test_a_token_is_no_change_to_keys_that_autograd_holds() -> None:
    layer, draw = GrowingLayer(), random.Random(0)
    with torch.no_grad():
        for _ in range(3):
            layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
    weights = torch.ones(4, requires_grad=True)
    total, expected = (layer.keys * weights).sum(), layer.keys.sum((0, 1, 2))
    with torch.no_grad():
        layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
    total.backward()
    assert torch.equal(weights.grad, expected)  # type: ignore[arg-type]
    layer.keys[:, :, 0] = weights


@torch.no_grad()
def test_keys_that_were_set_to_others_in_place_are_continued() -> None:
    draw, layers = random.Random(0), [GrowingLayer(), DynamicLayer()]
    for length in (5, 1, 1, 1):
        states = _states(draw, 1, length)
        ours, stock = (layer.update(states, states)[0] for layer in layers)
        assert torch.equal(ours, stock)
        for layer in layers:
            layer.keys.data = layer.keys.data[:, :, 1:].clone()
            layer.values.data = layer.values.data[:, :, 1:].clone()


@torch.no_grad()
def test_what_is_pickled_is_a_stock_layer() -> None:
    """Without the room, whose memory may hold anything, and without a class that must be found again."""
    layer, draw = GrowingLayer(), random.Random(0)
    for _ in range(3):
        layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is DynamicLayer and again.keys.is_contiguous()
    assert again.keys.untyped_storage().nbytes() == 3 * 2 * 4 * 4
    _same(again, layer)


@torch.no_grad()
def test_copies_have_room_too() -> None:
    layer, draw = GrowingLayer(), random.Random(0)
    for _ in range(3):
        layer.update(_states(draw, 1, 1), _states(draw, 1, 1))
    for copied in (copy.copy(layer), copy.deepcopy(layer), copy.deepcopy([layer])[0]):
        assert type(copied) is GrowingLayer and copied._room is None
        _same(copied, layer)
        copied.update(_states(draw, 1, 1), _states(draw, 1, 1))
        assert copied._room is not None and copied._room is not layer._room


def test_autograd_through_several_steps() -> None:
    """Also after steps without it, and before others."""
    gradients = []
    for layer in (GrowingLayer(), DynamicLayer()):
        draw, total = random.Random(0), torch.zeros(())
        states = [_states(draw, 1, 1).requires_grad_() for _ in range(6)]
        for step, new in enumerate(states):
            with torch.set_grad_enabled(step in (2, 3)):
                keys, values = layer.update(new, new)
                if step in (2, 3):
                    total = total + (keys.square() * values).sum()
        total.backward()
        gradients.append([state.grad for state in states[2:4]])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("options", [{}, {"full_layers": ()}, {"fa_decode": False}], ids=str)
def test_the_models_layers(zoo: Zoo, options: dict[str, Any]) -> None:
    """Full layers and those with FA decode, whoever makes the cache."""
    model, ids = zoo.model(**options), one(prompt(40))
    given = DynamicCache()
    logits(model, ids, past_key_values=given, use_cache=True)
    with torch.no_grad():
        caches = [given, model(ids)[CACHE]]
    caches.append(model.generate(ids, max_new_tokens=8, do_sample=False, return_dict_in_generate=True)[CACHE])
    swaa = model.config.swaa_config
    for cache in caches:
        for index, layer in enumerate(cache.layers):
            keeps = index in swaa["non_sliding_layers"] or options.get("fa_decode", True)
            assert (type(layer).__name__ == "GrowingLayer") is keeps


def test_generating_copies_no_keys(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first token makes room, the keys stay where they are."""
    model, where = zoo.model(full_layers=()), []
    forward = model.model.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        where.append(output[CACHE].layers[0].keys.data_ptr())
        return output

    monkeypatch.setattr(model.model, "forward", watched)
    model.generate(one(prompt(2300)), max_new_tokens=17, do_sample=False)
    assert len(set(where[1:])) == 1
