"""FlexAttention on the CPU: fused by torch's compiler, forward only."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.embed import Zoo, greedy, load, logits, pad_left, prompt
from tests.support.oracle import assert_close, from_position

pytestmark = [
    pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch compiles flex_attention with g++"),
    # torch's compiler of its own internals, and the stock masks of full layers.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
]
# Each shape is compiled anew, so these are few; test_gpu.py has the rest.
RECIPE: dict[str, Any] = {"full_layers": (), "keep_first": 140, "window": 30}


@pytest.fixture(scope="module")
def flex(zoo: Zoo) -> Iterator[Any]:
    """A model of FlexAttention."""
    torch._dynamo.reset()
    yield load(zoo.repo(**RECIPE), "flex_attention")
    torch._dynamo.reset()


def test_forward(zoo: Zoo, flex: Any) -> None:
    """A length that is no multiple of a block."""
    ids = prompt(300)
    actual = logits(flex, [ids], dense_from=280)
    assert_close(actual[0], zoo.oracle(**RECIPE).logits(ids, from_position(280)))


def test_generation_of_a_padded_batch(zoo: Zoo, flex: Any) -> None:
    rows = [prompt(5), prompt(200, 2), prompt(300, 3)]
    assert greedy(flex, pad_left(rows), 5) == [zoo.oracle(**RECIPE).greedy(row, 5) for row in rows]


def test_a_packed_row(zoo: Zoo, flex: Any) -> None:
    lengths = (150, 100, 50)
    rows = [prompt(length, seed) for seed, length in enumerate(lengths)]
    positions = torch.tensor([[n for length in lengths for n in range(length)]])
    actual = logits(flex, [sum(rows, [])], position_ids=positions)[0]
    for row in rows:
        part, actual = actual[: len(row)], actual[len(row) :]
        assert_close(part, zoo.oracle(**RECIPE).logits(row))


def test_eviction(zoo: Zoo) -> None:
    recipe: dict[str, Any] = {"full_layers": (), "fa_decode": False}
    ids = prompt(300)
    assert greedy(load(zoo.repo(**recipe), "flex_attention"), ids, 5) == [zoo.oracle(**recipe).greedy(ids, 5)]


def test_no_backward_on_the_cpu(flex: Any) -> None:
    ids = torch.tensor([prompt(256)])
    with pytest.raises(NotImplementedError, match="no backward pass on the CPU"):
        flex(ids, use_cache=False)
