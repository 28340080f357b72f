"""The CUDA kernels of vLLM's FLASH_ATTN in plain PyTorch: the same arguments, and the demands that the kernels make."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

INF = float("inf")


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    max_seqlen_q: int,
    cu_seqlens_q: Tensor,
    max_seqlen_k: int,
    seqused_k: Tensor,
    softmax_scale: float,
    causal: bool,
    block_table: Tensor,
    window_size: list[int] | None = None,
    return_softmax_lse: bool = False,
    out: Tensor | None = None,
    num_splits: int = 0,
    fa_version: int = 2,
    **stock: Any,
) -> Any:
    """q: (tokens, heads, dim); k, v: (blocks, block_size, kv_heads, dim); the log-sum-exp is (heads, tokens)."""
    ends, used = cu_seqlens_q.tolist(), seqused_k.tolist()
    assert fa_version == 3 and num_splits >= 0 and softmax_scale > 0
    assert cu_seqlens_q.dtype == seqused_k.dtype == block_table.dtype == torch.int32
    assert len(ends) - 1 == len(used) == len(block_table)
    assert cu_seqlens_q.is_contiguous() and seqused_k.is_contiguous() and block_table.stride(-1) == 1
    assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
    # Where nothing is computed there may be anything.
    found, lse = torch.full_like(q, float("nan")), torch.full((q.shape[1], len(q)), float("nan"))
    for row, (start, end, keys) in enumerate(zip(ends[:-1], ends[1:], used, strict=True)):
        assert 0 <= end - start <= max_seqlen_q and 0 <= keys <= max_seqlen_k
        if end > start:
            index = torch.arange(keys)
            place = block_table[row, index // k.shape[1]].long(), index % k.shape[1]
            seen = _seen(end - start, keys, causal, window_size)
            part, lse[:, start:end] = _attention(q[start:end], k[place], v[place], seen, softmax_scale)
            found[start:end] = part.to(q.dtype)
    if out is not None:
        found = out.copy_(found)
    return (found, lse) if return_softmax_lse else found


def _seen(rows: int, keys: int, causal: bool, window: list[int] | None) -> Tensor:
    """(rows, keys) bool: the last query stands at the last key."""
    distance = torch.arange(keys - rows, keys)[:, None] - torch.arange(keys)[None]
    left, right = window or (-1, -1)
    seen = distance >= 0 if causal or right == 0 else torch.ones_like(distance, dtype=torch.bool)
    return seen if left < 0 else seen & (distance <= left)


def _attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output (queries, heads, dim) and log-sum-exp (heads, queries). Without keys: 0 and -inf."""
    groups = query.shape[1] // key.shape[1]
    key, value = (states.float().repeat_interleave(groups, dim=1) for states in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key).mul(scale).masked_fill(~seen, -INF)
    weights = scores.softmax(dim=-1).nan_to_num(0.0)
    return torch.einsum("hqk,khd->qhd", weights, value), scores.logsumexp(dim=-1)


def merge_attn_states(merged: Tensor, first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> None:
    assert first.is_contiguous() and second.is_contiguous() and merged.shape == first.shape == second.shape
    assert first_lse.is_contiguous() and second_lse.is_contiguous()
    assert first_lse.dtype == second_lse.dtype == torch.float32 and first_lse.shape == second_lse.shape
    share = (first_lse - torch.logaddexp(first_lse, second_lse)).exp().T[:, :, None]
    merged.copy_(first.float() * share + second.float() * (1 - share))


def reshape_and_cache_flash(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor, *scales: Any
) -> None:
    real = slots >= 0
    place = slots[real] // key_cache.shape[1], slots[real] % key_cache.shape[1]
    key_cache[place], value_cache[place] = key[: len(slots)][real], value[: len(slots)][real]


def get_scheduler_metadata(**arguments: Any) -> None:
    """Only a plan for the kernel."""


KERNELS = {
    "flash_attn_varlen_func": flash_attn_varlen_func,
    "reshape_and_cache_flash": reshape_and_cache_flash,
    "get_scheduler_metadata": get_scheduler_metadata,
    "compile_flash_attn_varlen_func_from_specs": None,
    "get_flash_attn_version": lambda *args, **kwargs: 3,
    "is_flash_attn_varlen_func_available": lambda: True,
    "flash_attn_supports_sinks": lambda: True,
}


@contextmanager
def flash_attention() -> Iterator[None]:
    """vLLM chooses FLASH_ATTN, on a CPU."""
    from vllm.platforms import current_platform
    from vllm.v1.attention import selector
    from vllm.v1.attention.backends import fa_utils

    choice = classmethod(lambda *args, **kwargs: "vllm.v1.attention.backends.flash_attn.FlashAttentionBackend")
    with pytest.MonkeyPatch.context() as patch:
        _put(patch, fa_utils)
        from vllm.v1.attention.backends import flash_attn

        from swaa_convert.vllm import flash

        # Either may have been imported without them.
        _put(patch, flash_attn)
        _put(patch, flash)
        patch.setattr(flash, "merge_attn_states", merge_attn_states)
        patch.setattr(type(current_platform), "get_attn_backend_cls", choice)
        selector._cached_get_attn_backend.cache_clear()
        yield
    selector._cached_get_attn_backend.cache_clear()


def _put(patch: pytest.MonkeyPatch, module: Any) -> None:
    for name, kernel in KERNELS.items():
        patch.setattr(module, name, kernel, raising=False)
