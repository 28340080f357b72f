"""The blocks that FlexAttention is told of against the rule, point by point."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from modeling.swaa_block_mask import BLOCK, Form, block_mask, form_of
from tests.support.kernels import CASES, Call, Case

MORE = {
    "long": Case(window=256, keep_first=100, new=1500),
    "long and padded": Case(window=256, keep_first=100, new=1500, batch=2, padding=(700, 3)),
    "long and packed": Case(window=256, keep_first=100, new=1500, packed=(128, 900, 472)),
    "long chunk": Case(window=256, keep_first=300, past=1100, new=700),
    "long dense tail": Case(window=256, keep_first=10, new=1500, dense_from=1400),
}
ALL = {**CASES, **MORE}


def _listed(count: Tensor, indices: Tensor, columns: int) -> Tensor:
    """Bool (rows, query blocks, key blocks) of a list of blocks."""
    chosen = torch.zeros(*indices.shape[:1], indices.shape[2], columns, dtype=torch.long)
    for row, block in torch.cartesian_prod(torch.arange(indices.shape[0]), torch.arange(indices.shape[2])).tolist():
        for index in indices[row, 0, block, : int(count[row, 0, block])].tolist():
            chosen[row, block, index] += 1
    assert chosen.max() <= 1, "a block is listed twice"
    return chosen.bool()


def _tiles(mask: Tensor, missing: bool) -> Tensor:
    """(rows, q, k) as (rows, query blocks, key blocks, BLOCK * BLOCK)."""
    mask = pad(mask, (0, -mask.shape[2] % BLOCK, 0, -mask.shape[1] % BLOCK), value=missing)
    tiles = mask.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))
    return tiles.transpose(2, 3).flatten(3)


def _lists(call: Call, backward: bool = False) -> tuple[Tensor, Tensor]:
    keys = call.state.keys_of(0, call.key.shape[2])
    made = block_mask(call.query, keys, call.state, call.rule, form_of(keys, call.state, call.rule), backward)
    columns = -(-call.key.shape[2] // BLOCK)
    assert made.full_kv_num_blocks is not None and made.full_kv_indices is not None
    some = _listed(made.kv_num_blocks, made.kv_indices, columns)
    return some, _listed(made.full_kv_num_blocks, made.full_kv_indices, columns)


@pytest.mark.parametrize("name", ALL)
def test_every_pair_that_attends_is_in_a_block(name: str) -> None:
    call = Call(ALL[name])
    some, full = _lists(call)
    mask = pad(call.mask(), (0, call.case.free_slots))
    # Padding attends to itself, which nobody reads.
    mask = mask & (call.queries.position >= 0)[..., None]
    assert not (_tiles(mask, False).any(dim=3) & ~(some | full)).any()


@pytest.mark.parametrize("name", ALL)
def test_a_cpu_is_told_of_each_block_once(name: str) -> None:
    """Before PyTorch 2.8 its kernel looks at all of the list, however many blocks of it count."""
    call = Call(ALL[name])
    keys = call.state.keys_of(0, call.key.shape[2])
    made = block_mask(call.query, keys, call.state, call.rule, form_of(keys, call.state, call.rule), False)
    each = torch.arange(-(-call.key.shape[2] // BLOCK), dtype=torch.int32)
    assert (made.kv_indices.sort(dim=3).values == each).all()


@pytest.mark.parametrize("name", ALL)
def test_every_pair_of_a_full_block_attends(name: str) -> None:
    call = Call(ALL[name])
    some, full = _lists(call)
    mask = pad(call.mask(), (0, call.case.free_slots))
    assert _tiles(mask, False).all(dim=3)[full.expand(mask.shape[0], -1, -1)].all()
    assert not (some & full).any()


@pytest.mark.parametrize("name", ["long", "long and padded", "long and packed", "long chunk"])
def test_most_blocks_are_full_and_none_is_needless(name: str) -> None:
    """Or the kernel would be right, but slow."""
    call = Call(ALL[name])
    some, full = _lists(call)
    tiles = _tiles(call.mask() & (call.queries.position >= 0)[..., None], False)
    needed = tiles.any(dim=3)
    needless = (some | full) & ~needed
    assert needless.sum() <= 0.12 * needed.sum() + call.case.batch * 2 + 4
    assert full.sum() >= (tiles.all(dim=3)).sum() * 0.95


def test_a_window_of_2048_asks_the_rule_in_one_block_of_six() -> None:
    call = Call(Case(window=2048, keep_first=128, new=8192, dim=1, heads=1, kv_heads=1))
    some, full = _lists(call)
    assert some[0, 30].sum() == 2 and full[0, 30].sum() == 16


@pytest.mark.parametrize("name", ALL)
def test_the_lists_for_a_backward_pass_are_the_same(name: str) -> None:
    call = Call(ALL[name])
    for without, with_backward in zip(_lists(call), _lists(call, backward=True), strict=True):
        assert torch.equal(without, with_backward)


def test_rows_share_their_lists_unless_they_are_padded() -> None:
    call = Call(replace(CASES["batch"], new=1000))
    made = block_mask(call.query, call.keys, call.state, call.rule, Form("index", True, False), False)
    assert made.kv_indices.shape[0] == 1


def _points(call: Call, form: Form) -> Tensor:
    """The kernel's own question, asked for every pair: bool (batch, q, keys)."""
    keys = call.state.keys_of(0, call.key.shape[2])
    ask = block_mask(call.query, keys, call.state, call.rule, form, False).mask_mod
    shape = call.case.batch, call.case.new, keys.position.shape[1]
    b, q, k = torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij")
    return ask(b, torch.zeros_like(b), q, k).expand(shape)


@pytest.mark.parametrize("name", ALL)
def test_the_kernels_question_is_the_rule(name: str) -> None:
    call = Call(ALL[name])
    keys = call.state.keys_of(0, call.key.shape[2])
    expected = pad(call.mask(), (0, call.case.free_slots)).expand(call.case.batch, -1, -1)
    for form in (form_of(keys, call.state, call.rule), Form("tokens", False, call.case.dense_from is not None)):
        assert torch.equal(_points(call, form)[call.real], expected[call.real])
        # Padding sees something, or what is made of nothing would be no number.
        assert _points(call, form).any(dim=2).all()


@pytest.mark.parametrize(
    ("name", "keys"),
    [("plain", "index"), ("chunk", "index"), ("left-padded", "runs"), ("packed", "runs"), ("holes", "tokens")],
)
def test_the_fastest_form_is_found(name: str, keys: str) -> None:
    call = Call(CASES[name])
    form = form_of(call.keys, call.state, call.rule)
    assert form.keys == keys and form.own_queries == (name == "plain")
