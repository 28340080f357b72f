"""What takes over where a fast kernel can't be compiled: the same attention, said aloud."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from modeling import swaa_flash, swaa_flex
from modeling.swaa_block_mask import form_of
from modeling.swaa_flash import two_pass_attention
from modeling.swaa_flex import flex_attention, flex_or_blocks
from tests.support.kernels import CASES, Call


def _broken(*args: Any) -> Any:
    raise RuntimeError("no compiler\nand more")


def _without_memory(*args: Any) -> Any:
    raise RuntimeError("CUDA error: out of memory")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings; what is remembered of failures is forgotten afterwards."""
    warnings: list[str] = []
    monkeypatch.setattr(swaa_flex.logger, "warning", warnings.append)
    for name in ("_without_flash", "_without_flex", "_compiled"):
        monkeypatch.setattr(swaa_flex, name, type(getattr(swaa_flex, name))())
    monkeypatch.setattr(swaa_flex, "fallbacks", [])
    monkeypatch.setattr(swaa_flash, "_without_compiler", set())
    return warnings


def _check(kernel: Callable[..., Any], said: list[str], words: str, backend: str = "sdpa") -> None:
    for _ in range(2):
        call = Call(replace(CASES["plain"], backend=backend))
        assert call.error(call.run(kernel), call.expected()) < 1e-6
    assert said == swaa_flex.fallbacks and set(said) == {f"{words}, more slowly"}


def test_plain_pytorch_for_flex_attention(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_flex, "_kernel", lambda *_: _broken)
    _check(
        flex_or_blocks, said, "FlexAttention can't run here (RuntimeError: no compiler): plain PyTorch does the same"
    )
    assert swaa_flex._without_flex == {torch.device("cpu")}


def test_triton_for_flash_attn_4(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = swaa_flex._kernel
    monkeypatch.setattr(swaa_flex, "_takes_flash", lambda query: True)
    monkeypatch.setattr(swaa_flex, "_kernel", lambda kind, query: _broken if kind.flash else kernel(kind, query))
    # On a CPU the same words stand for PyTorch's own kernel.
    said_once = "flash-attn-4 can't compute this attention (RuntimeError: no compiler): Triton does"
    _check(flex_attention, said, said_once)
    assert len(said) == 1 and len(swaa_flex._without_flash) == 1


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("kernel", [flex_attention, flex_or_blocks])
def test_a_compiler_that_is_switched_off(
    kernel: Any, flash: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unfused form, which PyTorch would run, needs memory for all pairs. Nothing is remembered against it."""
    monkeypatch.setattr(swaa_flex, "_takes_flash", lambda query: flash)
    with torch.compiler.set_stance("force_eager"):
        words = "FlexAttention isn't compiled (NotCompiledError: torch.compile is switched off)"
        _check(kernel, said, f"{words}: plain PyTorch does the same")
    assert len(said) == 1 and not swaa_flex._without_flex and not swaa_flex._without_flash


def test_masks_are_kept_for_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_flex, "KEPT_MASKS", 1)
    monkeypatch.setattr(swaa_flex, "_masks", {})
    calls = [Call(replace(CASES["plain"], new=length)) for length in range(200, 240)]
    interval = sys.getswitchinterval()

    def ask(number: int) -> None:
        call = calls[number % len(calls)]
        form = form_of(call.keys, call.state, call.rule)
        with torch.no_grad():
            mask = swaa_flex._cached_mask(call.query, call.keys, call.state, call.rule, form, False)
        assert mask.seq_lengths == (call.query.shape[2], call.key.shape[2])

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(2000)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.usefixtures("flash_library")
def test_an_uncompiled_merge(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_flash, "_fused_merge", lambda: _broken)
    words = "the merge of two passes can't be compiled here (RuntimeError: no compiler): plain PyTorch does it"
    _check(two_pass_attention, said, words, "flash_attention_2")
    assert len(said) == 1 and swaa_flash._without_compiler == {"cpu"}


@pytest.mark.usefixtures("flash_library")
def test_a_compiled_merge(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the merge that a CPU otherwise does without is compiled."""
    calls: list[int] = []
    merge = torch.compile(swaa_flash._merged, dynamic=True, backend=lambda graph, inputs: calls.append(1) or graph)
    monkeypatch.setattr(swaa_flash, "_fused_merge", lambda: merge)
    call = Call(replace(CASES["plain"], backend="flash_attention_2"))
    assert call.error(call.run(two_pass_attention), call.expected()) < 1e-6
    assert calls and not said


@pytest.mark.usefixtures("flash_library")
@pytest.mark.parametrize("kernel", [flex_or_blocks, two_pass_attention])
def test_too_little_memory_is_no_reason(kernel: Any, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaa_flex, "_kernel", lambda *_: _without_memory)
    monkeypatch.setattr(swaa_flash, "_fused_merge", lambda: _without_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        Call(replace(CASES["plain"], backend="flash_attention_2")).run(kernel)
    assert not said and not swaa_flex._without_flex and not swaa_flash._without_compiler
