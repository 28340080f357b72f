"""FlexAttention on the CPU: the kernel alone, because stock full layers don't compile there for changing lengths."""

import shutil
from typing import Any

import pytest
import torch

from tests.support.embed import Zoo, logits, one, pad_left, prompt

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention on a CPU needs a C++ compiler"),
    # Compiling warns about the machine and about torch's own code.
    pytest.mark.filterwarnings("ignore"),
]
WINDOWED: dict[str, Any] = {"full_layers": (), "window": 70, "keep_first": 5}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Each test compiles for its own shape."""
    torch._dynamo.reset()


def _pair(zoo: Zoo, **recipe: Any) -> tuple[Any, Any]:
    return zoo.model(backend="flex_attention", **recipe), zoo.model(backend="eager", **recipe)


def _assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_lengths_that_are_no_multiple_of_the_block(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    ids = [prompt(300, 1), prompt(300, 2)]
    _assert_same(logits(flex, ids, dense_from=260), logits(eager, ids, dense_from=260))


def test_left_padded_rows(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    batch = pad_left([prompt(256), prompt(150)])
    real = batch["attention_mask"].bool()
    _assert_same(logits(flex, **batch)[real], logits(eager, **batch)[real])


def test_packed_rows(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    positions = torch.cat([torch.arange(100), torch.arange(40), torch.arange(160)])[None]
    ids = one(prompt(300))
    _assert_same(logits(flex, ids, position_ids=positions), logits(eager, ids, position_ids=positions))


def test_a_backward_pass_is_refused(zoo: Zoo) -> None:
    flex, _ = _pair(zoo, **WINDOWED)
    with pytest.raises(NotImplementedError, match="no backward pass on the CPU"):
        flex(one(prompt(200)))
