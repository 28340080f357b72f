"""Decoding from a static cache in a compiled graph, where only the device knows how full it is."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.swaa_blocks import block_size, blocked_attention
from modeling.swaa_state import number_tokens
from tests.support.kernels import Call, Case

CAPACITY = 3000


class Widest(TorchDispatchMode):
    """Watches how many keys any attention is computed over."""

    keys = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "scaled_dot_product" in str(func):
            self.keys = max(self.keys, args[1].shape[2])
        return func(*args, **(kwargs or {}))


def _decoding(case: Case, padding: torch.Tensor | None = None) -> Call:
    """A call whose cache has free slots and a counter on the device."""
    call = Call(replace(case, free_slots=CAPACITY - case.past - case.new))
    call.state.past, call.state.length = torch.tensor(case.past), None
    call.state.keys.position = number_tokens(padding, CAPACITY, call.device)
    return call


def _padded(padding: tuple[int, ...], free: int, case: Case) -> torch.Tensor:
    """The 2D mask over all slots; free: what it says of those that are not filled."""
    mask = torch.ones(len(padding), CAPACITY, dtype=torch.long)
    mask[:, case.past + case.new :] = free
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    mask[:, list(case.holes)] = 0
    return mask


@pytest.mark.parametrize("past", [0, 1, 69, 70, 75, 76, 1000, CAPACITY - 4])
@pytest.mark.parametrize("new", [1, 4])
@pytest.mark.parametrize("rule", [(70, 5), (1, 0), (64, 0), (33, 200)])
def test_it_is_exact(past: int, new: int, rule: tuple[int, int]) -> None:
    case = Case(*rule, new=new, past=past, batch=2)
    assert _error(case, _decoding(case)) < 1e-6


@pytest.mark.parametrize("padding", [(0, 1), (0, 900), (500, 999), (1003, 5), (1010, 0)])
@pytest.mark.parametrize("with_holes", [False, True])
@pytest.mark.parametrize("new", [1, 20])
@pytest.mark.parametrize("rule", [(70, 5), (1, 0), (64, 0), (33, 200)])
def test_padded_rows_are_exact(padding: tuple[int, ...], with_holes: bool, new: int, rule: tuple[int, int]) -> None:
    """With 20 new tokens, padding reaches into them, or past all of them but the last few."""
    padding = tuple(min(count, 1000 + new - 1) for count in padding)
    holes = (3, 40, 950, 960, 1000 + new - 2) if with_holes else ()
    case = Case(*rule, new=new, past=1000, batch=2, padding=padding, holes=holes)
    for free in (0, 1):
        assert _error(case, _decoding(case, _padded(padding, free, case))) < 1e-6


def _error(case: Case, call: Call) -> float:
    output = call.run(blocked_attention)
    assert output.isfinite().all()
    return call.error(output, Call(replace(case, free_slots=CAPACITY - case.past - case.new)).expected())


@pytest.mark.parametrize("padding", [(), (0, 900)])
def test_a_step_reads_sinks_and_window_only(padding: tuple[int, ...]) -> None:
    case = Case(70, 5, new=1, past=2000, batch=2, padding=padding)
    call = _decoding(case, _padded(padding, 0, case) if padding else None)
    with Widest() as widest:
        call.run(blocked_attention)
    assert widest.keys == 75


@pytest.mark.parametrize("fa_decode", [False, True])
@pytest.mark.parametrize("padding", [(), (0, 900)])
def test_a_chunk_reads_as_little_for_each_block(padding: tuple[int, ...], fa_decode: bool) -> None:
    """With FA decode too, while the prompt is read: no query is dense."""
    case = Case(70, 5, new=500, past=2000, batch=2, padding=padding)
    call = _decoding(case, _padded(padding, 0, case) if padding else None)
    call.rule = replace(call.rule, fa_decode=fa_decode)
    with Widest() as widest:
        assert _error(case, call) < 1e-6
    assert widest.keys == 5 + 69 + block_size(70)


@pytest.mark.parametrize("padding", [(), (0, 900)])
def test_dense_queries_of_a_chunk(padding: tuple[int, ...]) -> None:
    case = Case(70, 5, new=300, past=1000, batch=2, padding=padding, dense_from=1290)
    assert _error(case, _decoding(case, _padded(padding, 0, case) if padding else None)) < 1e-6
