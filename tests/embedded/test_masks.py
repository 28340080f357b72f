"""The caller's own 4D masks hide more; they never show what the rule hides."""

from typing import Any

import pytest
import torch
from transformers import DynamicCache, StaticCache

from tests.support.embed import Zoo, logits, one, prompt
from tests.support.oracle import assert_close, from_position

LENGTH = 100
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
# Stock eager attention adds bool masks to the scores as if they were numbers.
kinds = pytest.mark.parametrize(("backend", "kind"), [("eager", "additive"), ("sdpa", "additive"), ("sdpa", "bool")])


def _mask(length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    """Causal, with a third of the earlier keys hidden: bool (length, length)."""
    shown = torch.rand(length, length, generator=torch.Generator().manual_seed(seed)) > 0.33
    return shown.tril() | torch.eye(length, dtype=torch.bool)


def _as(kind: str, mask: torch.Tensor) -> torch.Tensor:
    if kind == "bool":
        return mask
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


@recipes
@kinds
def test_one_pass(zoo: Zoo, backend: str, kind: str, recipe: str) -> None:
    ids, mask = prompt(LENGTH), _mask()
    model = zoo.model(backend=backend, **RECIPES[recipe])
    actual = logits(model, [ids], attention_mask=_as(kind, mask[None, None]), dense_from=70)
    assert_close(actual[0], zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(70), also=mask))


@kinds
def test_a_mask_per_row(zoo: Zoo, backend: str, kind: str) -> None:
    rows, masks = [prompt(LENGTH, 1), prompt(LENGTH, 2)], [_mask(seed=1), _mask(seed=2)]
    actual = logits(zoo.model(backend=backend), rows, attention_mask=_as(kind, torch.stack(masks)[:, None]))
    for output, ids, mask in zip(actual, rows, masks, strict=True):
        assert_close(output, zoo.oracle().logits(ids, also=mask))


@kinds
def test_one_mask_for_all_rows_and_heads(zoo: Zoo, backend: str, kind: str) -> None:
    rows, mask = [prompt(LENGTH, 1), prompt(LENGTH, 2)], _mask()
    model = zoo.model(backend=backend)
    actual = logits(model, rows, attention_mask=_as(kind, mask.expand(1, 4, -1, -1)))
    for output, ids in zip(actual, rows, strict=True):
        assert_close(output, zoo.oracle().logits(ids, also=mask))


@kinds
def test_a_prompt_within_the_window(zoo: Zoo, backend: str, kind: str) -> None:
    ids, mask = [prompt(8)], _as(kind, _mask(8)[None, None])
    actual = logits(zoo.model(backend=backend), ids, attention_mask=mask)
    assert torch.equal(actual, logits(zoo.stock(backend=backend), ids, attention_mask=mask))


@recipes
@kinds
def test_chunks_over_a_cache(zoo: Zoo, backend: str, kind: str, recipe: str) -> None:
    """Evicted keys don't shift the columns of what is left."""
    ids, mask, cache = prompt(LENGTH), _mask(), DynamicCache()
    model = zoo.model(backend=backend, **RECIPES[recipe])
    expected = zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(95), also=mask)
    for start, end in ((0, 60), (60, 90), (90, 91), (91, 97), (97, 100)):
        part = _as(kind, mask[None, None, start:end, :end])
        actual = logits(
            model, one(ids[start:end]), attention_mask=part, past_key_values=cache, use_cache=True, dense_from=95
        )
        assert_close(actual[0], expected[start:end])


@kinds
def test_a_static_cache(zoo: Zoo, backend: str, kind: str) -> None:
    """There the mask has a column for each slot."""
    ids, model = prompt(LENGTH), zoo.model(backend=backend)
    mask = torch.cat([_mask(), torch.zeros(LENGTH, 20, dtype=torch.bool)], dim=1)
    cache = StaticCache(config=model.config, max_cache_len=LENGTH + 20)
    actual = logits(model, [ids], attention_mask=_as(kind, mask[None, None]), past_key_values=cache, use_cache=True)
    assert_close(actual[0], zoo.oracle().logits(ids, also=_mask()))


def test_other_masks_are_refused(zoo: Zoo) -> None:
    for mask in ({"full_attention": None}, torch.ones(1, 10, 10)):
        with pytest.raises(ValueError):
            logits(zoo.model(), [prompt(10)], attention_mask=mask)


def test_a_mask_that_is_too_short_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ValueError, match="attention_mask covers 9 tokens"):
        logits(zoo.model(), [prompt(10)], attention_mask=torch.ones(1, 9))
