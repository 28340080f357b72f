"""Decoding that overwrites released keys in place: what it must not disturb."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from tests.support.embed import CACHE, Zoo, load, logits, one, pad_left, prompt
from tests.support.oracle import assert_close

RECIPE: dict[str, Any] = {"full_layers": (), "fa_decode": False}
RULES = [{}, {"window": 1}, {"keep_first": 0}, {"full_layers": (1, 3)}, {"keep_first": 20}]
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


class Loop:
    """A user's own loop over a padded batch and one cache; `rows` holds what each row has really read."""

    def __init__(self, model: Any, rows: list[list[int]]) -> None:
        self.model, self.cache, self.rows = model, DynamicCache(config=model.config), [list(row) for row in rows]
        batch = pad_left(rows)
        self.mask = batch["attention_mask"][:, :0]
        self.read(batch["input_ids"], batch["attention_mask"], new=False)

    def read(self, ids: Tensor, mask: Tensor, new: bool = True) -> Tensor:
        """Logits of new tokens (batch, n), of which the mask hides some."""
        self.mask = torch.cat([self.mask, mask], dim=1)
        places = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if new:
            for row, tokens, real in zip(self.rows, ids.tolist(), mask.bool().tolist(), strict=True):
                row += [token for token, keep in zip(tokens, real, strict=True) if keep]
        options = {"attention_mask": self.mask, "position_ids": places, "past_key_values": self.cache}
        return logits(self.model, ids, **options)

    def turn(self, count: int, seed: int = 5) -> Tensor:
        """Logits of `count` tokens that all rows get."""
        ids = torch.tensor([prompt(count, seed)] * len(self.rows))
        return self.read(ids, torch.ones_like(ids))


def _assert_right(loop: Loop, actual: Tensor, oracle: Any) -> None:
    for row, found in zip(loop.rows, actual, strict=True):
        # Many steps, each rounding in its own way.
        assert_close(found, oracle.logits(row)[-actual.shape[1] :], 3e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
@backends
def test_finished_rows_are_masked(zoo: Zoo, backend: str, rule: dict[str, Any]) -> None:
    """One row's surplus tokens are padding: they take no real key's place."""
    recipe = {**RECIPE, **rule}
    loop = Loop(zoo.model(backend=backend, **recipe), [prompt(30, 1), prompt(17, 2)])
    for step in range(12):
        loop.read(torch.tensor([[step], [step + 40]]), torch.tensor([[1], [int(step < 2)]]))
    _assert_right(loop, loop.turn(5), zoo.oracle(**recipe))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 7, 25])
@backends
def test_a_second_turn_after_decoding(zoo: Zoo, backend: str, steps: int, rule: dict[str, Any]) -> None:
    recipe = {**RECIPE, **rule}
    for rows in ([prompt(30, 1)], [prompt(30, 1), prompt(4, 2)]):
        loop = Loop(zoo.model(backend=backend, **recipe), rows)
        for step in range(steps):
            _assert_right(loop, loop.turn(1, step), zoo.oracle(**recipe))
        _assert_right(loop, loop.turn(9), zoo.oracle(**recipe))


@pytest.mark.parametrize("rows", [[40], [40, 37]], ids=str)
def test_decoding_copies_no_cache(zoo: Zoo, rows: list[int]) -> None:
    """Whatever is read takes the place of what is released, in the same memory."""
    loop = Loop(zoo.model(**RECIPE), [prompt(length, length) for length in rows])
    loop.turn(1)
    layer = loop.cache.layers[0]
    before = layer.keys.data_ptr(), layer.values.data_ptr(), layer.keys.shape
    for step in range(20):
        loop.turn(1, step)
    assert (layer.keys.data_ptr(), layer.values.data_ptr(), layer.keys.shape) == before


@pytest.mark.parametrize("rows", [[20], [20, 17]], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 15])
def test_crop_after_decoding(zoo: Zoo, rows: list[int], steps: int) -> None:
    """What is gone can't be taken back, and taking nothing back changes nothing."""
    loop = Loop(zoo.model(**RECIPE), [prompt(length, length) for length in rows])
    for step in range(steps):
        loop.turn(1, step)
    layer = loop.cache.layers[0]
    if steps > 1:
        with pytest.raises(ValueError, match="released"):
            layer.crop(-1)
    layer.crop(layer.get_seq_length())
    _assert_right(loop, loop.turn(5), zoo.oracle(**RECIPE))


@pytest.mark.parametrize("trained", ["q_proj", "v_proj", ""])
@backends
def test_gradients_through_cached_steps(zoo: Zoo, backend: str, trained: str) -> None:
    model, ids = load(zoo.repo(**RECIPE), backend), one(prompt(20))
    model.requires_grad_(False)
    weights = [weight.requires_grad_() for name, weight in model.named_parameters() if trained in name]
    cache: Any = DynamicCache(config=model.config)
    parts = [model(part, **{CACHE: cache}).logits for part in ids.split([11] + [1] * 9, dim=1)]
    stepped = torch.autograd.grad(torch.cat(parts, dim=1).sum(), weights)
    whole = torch.autograd.grad(model(ids, use_cache=False).logits.sum(), weights)
    for found, expected in zip(stepped, whole, strict=True):
        assert (found - expected).norm() < 1e-4 * expected.norm() + 1e-4


def test_decoding_leaves_an_earlier_graph_alone(zoo: Zoo) -> None:
    model, ids = load(zoo.repo(**RECIPE)), one(prompt(30))
    cache: Any = DynamicCache(config=model.config)
    parts = [model(part, **{CACHE: cache}).logits for part in ids[:, :12].split([10, 1, 1], dim=1)]
    with torch.no_grad():
        for token in ids[:, 12:].split(1, dim=1):
            model(token, **{CACHE: cache})
    torch.cat(parts, dim=1).sum().backward()


def test_steps_in_and_out_of_inference_mode(zoo: Zoo) -> None:
    loop = Loop(zoo.model(**RECIPE), [prompt(30)])
    for step in range(6):
        with torch.inference_mode(step % 2 == 0):
            loop.turn(1, step)
    _assert_right(loop, loop.turn(5), zoo.oracle(**RECIPE))
