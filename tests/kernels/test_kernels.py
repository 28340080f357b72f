"""Every kernel of windowed layers that runs on a CPU against the eager reference, call by call."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from modeling.swaa_blocks import blocked_attention
from modeling.swaa_flash import takes_flash, two_pass_attention
from tests.support.kernels import CASES, Call

UNDENSE = [name for name, case in CASES.items() if case.dense_from is None]


def _flash(name: str, backend: str = "flash_attention_2") -> Call:
    return Call(replace(CASES[name], backend=backend))


def _trims(call: Call) -> Any:
    """The reference, as a function of the states."""
    return lambda query, key, value: call.expected(query, key, value)


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    # A window of one has no gradient for queries and keys.
    assert (found - expected).norm() < 1e-5 * max(float(expected.norm()), 10.0)


@pytest.mark.parametrize("name", CASES)
def test_blocks(name: str) -> None:
    call = Call(CASES[name])
    assert call.error(call.run(blocked_attention), call.expected()) < 1e-6


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_blocks(name: str) -> None:
    call = Call(CASES[name])
    actual = call.gradients(lambda *states: call.run(blocked_attention, *states))
    for found, expected in zip(actual, call.gradients(_trims(call)), strict=True):
        _assert_close(found, expected)


@pytest.mark.parametrize("backend", ["flash_attention_2", "flash_attention_3"])
@pytest.mark.parametrize("name", UNDENSE)
@pytest.mark.usefixtures("flash_library")
def test_two_passes(name: str, backend: str) -> None:
    call = _flash(name, backend)
    assert takes_flash(call.query, call.state, call.rule)
    assert call.error(call.run(two_pass_attention), call.expected()) < 1e-6


@pytest.mark.parametrize("name", UNDENSE)
@pytest.mark.usefixtures("flash_library")
def test_gradients_of_two_passes(name: str) -> None:
    call = _flash(name)
    actual = call.gradients(lambda *states: call.run(two_pass_attention, *states))
    for found, expected in zip(actual, call.gradients(_trims(call)), strict=True):
        _assert_close(found, expected)


@pytest.mark.parametrize("name", ["dense tail", "padded dense tail"])
def test_dense_queries_are_not_for_flash_attention(name: str) -> None:
    call = _flash(name)
    assert not takes_flash(call.query, call.state, call.rule)


def test_flash_attention_3_trains_through_flex_attention() -> None:
    call = _flash("plain", "flash_attention_3")
    assert not takes_flash(call.query.requires_grad_(), call.state, call.rule)


@pytest.mark.usefixtures("flash_library")
def test_a_flash_attention_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.6 the log-sum-exp was padded: it must not be merged as if it weren't."""
    from tests.support import flash_attn_math

    def older(*args: Any, **kwargs: Any) -> Any:
        output, lse, rest = newer(*args, **kwargs)
        return output, lse[None], rest

    newer = flash_attn_math.flash_attn_varlen_func
    monkeypatch.setattr(flash_attn_math, "flash_attn_varlen_func", older)
    with pytest.raises(NotImplementedError, match="too old"):
        _flash("plain").run(two_pass_attention)


def test_reference_and_kernels_differ_if_the_rule_does() -> None:
    """The tests above can fail: one key more or less in the window shows."""
    call = Call(CASES["plain"])
    call.rule = replace(call.rule, window=call.rule.window + 1)
    assert call.error(call.run(blocked_attention), Call(CASES["plain"]).expected()) > 1e-3
    assert torch.isfinite(call.expected()).all()
