"""The rule as modeling/ writes it, against the rule as the tests write it, and its exact edges in a whole model."""

import pytest
import torch

from modeling.swaa_mask import Rule, Tokens
from modeling.swaa_mask import rule_mask as shipped_mask
from tests.support.embed import Zoo, logits, prompt
from tests.support.oracle import from_position, no_query, rule_mask

LENGTH = 30
ONE_LAYER = {"num_hidden_layers": 1, "max_window_layers": 1}


@pytest.mark.parametrize("window", [1, 2, 8, LENGTH - 1, LENGTH, 100])
@pytest.mark.parametrize("keep_first", [0, 1, 5, 12, 100])
@pytest.mark.parametrize("dense_from", [None, 0, 3, LENGTH - 1, LENGTH])
def test_both_writings_agree(window: int, keep_first: int, dense_from: int | None) -> None:
    index = torch.arange(LENGTH)[None]
    dense = None if dense_from is None else index >= dense_from
    actual = shipped_mask(Tokens(index, dense=dense), Tokens(index), Rule(window, keep_first, fa_decode=True))
    expected = no_query if dense_from is None else from_position(dense_from)
    assert torch.equal(actual[0], rule_mask(LENGTH, window, keep_first, expected))


def test_a_layer_without_fa_decode_ignores_dense_queries() -> None:
    index = torch.arange(LENGTH)[None]
    queries = Tokens(index, dense=index >= 3)
    assert torch.equal(shipped_mask(queries, Tokens(index), Rule(4, 1, False))[0], rule_mask(LENGTH, 4, 1))


def test_the_rule_in_small() -> None:
    """Window 2, one sink, the last of five queries dense; by hand."""
    by_hand = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert rule_mask(5, 2, 1, from_position(4)).int().tolist() == by_hand


def _reads(zoo: Zoo, backend: str, key: int, query: int, length: int, **options: object) -> bool:
    """Whether the output at `query` depends on the token at `key`, in a model of one windowed layer."""
    recipe = {"full_layers": (), "config": ONE_LAYER, **options}
    dense_from = recipe.pop("dense_from", None)
    model = zoo.model(backend=backend, **recipe)
    ids = prompt(length)
    changed = [(token + (n == key)) % 256 for n, token in enumerate(ids)]
    before, after = logits(model, [ids, changed], dense_from=dense_from)[:, query]
    return not torch.equal(before, after)


BACKENDS = pytest.mark.parametrize("backend", ["eager", "sdpa"])


# Queries in the first block of the blocked path and far behind it.
@BACKENDS
@pytest.mark.parametrize("query", [20, 63, 64, 65, 127, 128, 140, 149])
def test_the_windows_last_key(zoo: Zoo, backend: str, query: int) -> None:
    assert _reads(zoo, backend, query - 7, query, length=150)
    assert not _reads(zoo, backend, query - 8, query, length=150)


@BACKENDS
@pytest.mark.parametrize("query", [20, 64, 140])
def test_the_last_sink(zoo: Zoo, backend: str, query: int) -> None:
    assert _reads(zoo, backend, 1, query, length=150)
    assert not _reads(zoo, backend, 2, query, length=150)


@BACKENDS
def test_no_sinks(zoo: Zoo, backend: str) -> None:
    assert not _reads(zoo, backend, 0, 100, length=150, keep_first=0)


@BACKENDS
def test_a_window_of_one_sees_itself_and_the_sinks(zoo: Zoo, backend: str) -> None:
    assert _reads(zoo, backend, 70, 70, length=90, window=1)
    assert not _reads(zoo, backend, 69, 70, length=90, window=1)
    assert _reads(zoo, backend, 1, 70, length=90, window=1)


@BACKENDS
@pytest.mark.parametrize("dense_from", [1, 63, 64, 80])
def test_the_first_dense_query(zoo: Zoo, backend: str, dense_from: int) -> None:
    """The query at dense_from sees a key in the middle, the one before it doesn't."""
    key, length = 30, 90
    assert _reads(zoo, backend, key, max(dense_from, 60), length=length, dense_from=dense_from)
    before = dense_from - 1
    assert before <= key or not _reads(zoo, backend, key, before, length=length, dense_from=dense_from)


@BACKENDS
def test_without_fa_decode_nothing_is_dense(zoo: Zoo, backend: str) -> None:
    assert not _reads(zoo, backend, 30, 89, length=90, dense_from=5, fa_decode=False)
