"""On the sdpa path of the CPU nothing grows with the square of the length."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.embed import Zoo, logits, prompt

LENGTH = 2048


class Sizes(TorchDispatchMode):
    """Watches every tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(result.alias_info for result in func._schema.returns):
            # A view of something, or that itself.
            return made
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.total += tensor.numel()
        return made


def _sizes(model: Any, length: int, **options: Any) -> Sizes:
    ids = torch.tensor([prompt(length)])
    with Sizes() as sizes:
        logits(model, ids, logits_to_keep=1, **options)
    return sizes


def _left_padding(length: int, padding: int) -> torch.Tensor:
    mask = torch.ones(1, length, dtype=torch.long)
    mask[:, :padding] = 0
    return mask


INPUTS: dict[str, Any] = {
    "plain": lambda length: {},
    "left-padded": lambda length: {"attention_mask": _left_padding(length, 700)},
    "generation": lambda length: {"dense_from": length},
    "packed": lambda length: {"position_ids": torch.arange(length)[None] % 600},
    "without a cache": lambda length: {"use_cache": False},
}


@pytest.mark.parametrize("fa_decode", [True, False])
@pytest.mark.parametrize("inputs", INPUTS)
def test_no_quadratic_tensor(zoo: Zoo, inputs: str, fa_decode: bool) -> None:
    model = zoo.model(full_layers=(), fa_decode=fa_decode)
    # Well below: the widest tensor of a linear pass is the MLP's.
    assert _sizes(model, LENGTH, **INPUTS[inputs](LENGTH)).largest < LENGTH * LENGTH / 8


@pytest.mark.parametrize("inputs", INPUTS)
def test_everything_grows_linearly(zoo: Zoo, inputs: str) -> None:
    model = zoo.model(full_layers=())
    short = _sizes(model, LENGTH, **INPUTS[inputs](LENGTH)).total
    assert _sizes(model, 2 * LENGTH, **INPUTS[inputs](2 * LENGTH)).total < 2.1 * short


def test_generated_tokens_cost_a_row_of_keys(zoo: Zoo) -> None:
    """A few dense queries at the end are not worth a dense block's N x N either."""
    sizes = _sizes(zoo.model(full_layers=()), LENGTH, dense_from=LENGTH - 3)
    assert sizes.largest < LENGTH * LENGTH / 8


def test_a_training_pass_is_linear_too(zoo: Zoo) -> None:
    model, ids = zoo.model(full_layers=()), torch.tensor([prompt(LENGTH)])
    with Sizes() as sizes:
        torch.autograd.grad(model(ids, logits_to_keep=1, use_cache=False).logits.sum(), model.lm_head.weight)
    assert sizes.largest < LENGTH * LENGTH / 8


def test_the_watch_sees_a_quadratic_mask(zoo: Zoo) -> None:
    """Eager attention has one: the tests above can fail."""
    assert _sizes(zoo.model(full_layers=(), backend="eager"), 512).largest >= 512 * 512
