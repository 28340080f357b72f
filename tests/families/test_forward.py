"""One forward pass of each family, against its stock model under the rule."""

import shutil
from typing import Any

import pytest
import torch

from tests.families.matrix import each
from tests.support.embed import Zoo, logits, one, pad_right, prompt
from tests.support.oracle import assert_close, from_position

RECIPES: dict[str, dict[str, Any]] = {"interleaved": {}, "no FA decode": {"full_layers": (), "fa_decode": False}}
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])


@pytest.mark.parametrize("recipe", RECIPES)
@backends
@each()
def test_the_rule(zoo: Zoo, family: str, backend: str, recipe: str) -> None:
    ids = prompt(150)
    actual = logits(zoo.model(family, backend, **RECIPES[recipe]), [ids], dense_from=100)
    assert_close(actual[0], zoo.oracle(family, **RECIPES[recipe]).logits(ids, from_position(100)))


@backends
@each()
def test_a_prompt_within_the_window_is_the_source_models(zoo: Zoo, family: str, backend: str) -> None:
    ids = [prompt(8, 1), prompt(8, 2)]
    assert torch.equal(logits(zoo.model(family, backend), ids), logits(zoo.stock(family, backend), ids))


@each()
def test_no_window_and_dense_queries_are_the_source_model(zoo: Zoo, family: str) -> None:
    ids, open_window = [prompt(90)], {"window": None, "keep_first": 0, "full_layers": None}
    expected = logits(zoo.stock(family, "sdpa"), ids)
    assert torch.equal(logits(zoo.model(family, **open_window), ids), expected)
    assert torch.equal(logits(zoo.model(family), ids, dense_from=0), expected)


@each()
def test_the_models_differ_at_all(zoo: Zoo, family: str) -> None:
    """The test models' attention is peaky enough for a wrong mask to show."""
    ids = [prompt(100)]
    stock = logits(zoo.stock(family), ids)
    assert (logits(zoo.model(family), ids) - stock).abs().max() > 0.05 * stock.abs().max()


@each()
def test_right_padded(zoo: Zoo, family: str) -> None:
    rows = [prompt(length, length) for length in (3, 40, 90)]
    actual = logits(zoo.model(family), **pad_right(rows))
    for output, row in zip(actual, rows, strict=True):
        assert_close(output[: len(row)], zoo.oracle(family).logits(row))


@each()
def test_packed(zoo: Zoo, family: str) -> None:
    rows = [prompt(30, 0), prompt(50, 1), prompt(70, 2)]
    positions = torch.tensor([[place for row in rows for place in range(len(row))]])
    actual = logits(zoo.model(family), one(sum(rows, [])), position_ids=positions)[0]
    for output, row in zip(actual.split([len(row) for row in rows]), rows, strict=True):
        assert_close(output, zoo.oracle(family).logits(row))


@pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention on a CPU needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_scale_of_its_own_reaches_flex_attention(zoo: Zoo) -> None:
    """Granite's scores are not divided by the root of the head's width."""
    torch._dynamo.reset()
    recipe: dict[str, Any] = {"full_layers": (), "window": 70, "keep_first": 5}
    ids = [prompt(300)]
    actual = logits(zoo.model("granite", "flex_attention", **recipe), ids)
    assert_close(actual[0], zoo.oracle("granite", **recipe).logits(ids[0]))
