"""Decoding from a static cache in a compiled graph, where only the device knows how full it is."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modeling.swaa_blocks import blocked_attention
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


def _decoding(past: int, new: int, window: int, keep_first: int) -> Call:
    """A call whose cache has free slots and a counter on the device."""
    call = Call(Case(window, keep_first, new=new, past=past, free_slots=CAPACITY - past - new, batch=2))
    call.state.past, call.state.length = torch.tensor(past), None
    call.state.keys.position = number_tokens(None, CAPACITY, call.device)
    return call


@pytest.mark.parametrize("past", [0, 1, 69, 70, 75, 76, 1000, CAPACITY - 4])
@pytest.mark.parametrize("new", [1, 4])
@pytest.mark.parametrize("rule", [(70, 5), (1, 0), (64, 0), (33, 200)])
def test_it_is_exact(past: int, new: int, rule: tuple[int, int]) -> None:
    call = _decoding(past, new, *rule)
    expected = Call(Case(*rule, new=new, past=past, free_slots=CAPACITY - past - new, batch=2)).expected()
    assert call.error(call.run(blocked_attention), expected) < 1e-6


def test_a_step_reads_sinks_and_window_only() -> None:
    call = _decoding(2000, 1, 70, 5)
    with Widest() as widest:
        call.run(blocked_attention)
    assert widest.keys == 75
