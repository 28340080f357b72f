"""flash-attention 2's two functions that SWAA calls, by PyTorch's own copy of its kernels or, on a CPU, by definition.

It stands in for a package that can't be installed here; names, shapes and meanings are those of flash-attn 2.8.
"""

from typing import Any

import torch
from torch import Tensor


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Any = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Any = None,
) -> Any:
    """q: (tokens, heads, dim). With return_attn_probs also the log-sum-exp (heads, tokens)."""
    if q.is_cuda:
        left, right = (None, None) if window_size == (-1, -1) else window_size
        result = torch.ops.aten._flash_attention_forward(
            *(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, causal, False),
            scale=softmax_scale,
            window_size_left=left,
            window_size_right=right,
        )
        output, lse = result[:2]
    else:
        output, lse = torch.empty_like(q), torch.empty(q.shape[1], q.shape[0])
        for rows, columns in _sequences(cu_seqlens_q, cu_seqlens_k):
            scores = _scores(q[rows], k[columns], softmax_scale, causal, window_size)
            lse[:, rows] = scores.logsumexp(dim=2)
            output[rows] = (scores.softmax(dim=2) @ _heads(v[columns], q.shape[1])).transpose(0, 1)
    return (output, lse, None) if return_attn_probs else output


def _flash_attn_varlen_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    softmax_lse: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float,
    softmax_scale: float,
    causal: bool,
    window_size_left: int,
    window_size_right: int,
    softcap: float,
    alibi_slopes: Any,
    deterministic: bool,
    rng_state: Any = None,
    zero_tensors: bool = False,
) -> None:
    """Writes the gradients into dq, dk and dv."""
    window = (window_size_left, window_size_right)
    if q.is_cuda:
        left, right = (None, None) if window == (-1, -1) else window
        state = torch.zeros(2, dtype=torch.uint64, device=q.device)
        found = torch.ops.aten._flash_attention_backward(
            *(dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k),
            *(dropout_p, causal, state, state),
            scale=softmax_scale,
            window_size_left=left,
            window_size_right=right,
        )
        for target, gradient in zip((dq, dk, dv), found, strict=True):
            target.copy_(gradient)
        return
    groups = q.shape[1] // k.shape[1]
    for rows, columns in _sequences(cu_seqlens_q, cu_seqlens_k):
        scores = _scores(q[rows], k[columns], softmax_scale, causal, window)
        weights = (scores - softmax_lse[:, rows, None]).exp()
        gradient, output = dout[rows].transpose(0, 1), out[rows].transpose(0, 1)
        of_weights = gradient @ _heads(v[columns], q.shape[1]).transpose(1, 2)
        of_scores = weights * (of_weights - (gradient * output).sum(dim=2, keepdim=True)) * softmax_scale
        dq[rows] = (of_scores @ _heads(k[columns], q.shape[1])).transpose(0, 1)
        for target, whole in ((dk, of_scores.transpose(1, 2) @ q[rows].transpose(0, 1)), (dv, weights.mT @ gradient)):
            target[columns] = whole.unflatten(0, (-1, groups)).sum(dim=1).transpose(0, 1)


def _sequences(queries: Tensor, keys: Tensor) -> list[tuple[slice, slice]]:
    bounds = [cumulative.tolist() for cumulative in (queries, keys)]
    rows, columns = ([slice(a, b) for a, b in zip(ends, ends[1:], strict=False)] for ends in bounds)
    return list(zip(rows, columns, strict=True))


def _heads(states: Tensor, heads: int) -> Tensor:
    """(tokens, kv_heads, dim) as (heads, tokens, dim)."""
    return states.transpose(0, 1).repeat_interleave(heads // states.shape[1], dim=0)


def _scores(q: Tensor, k: Tensor, scale: float | None, causal: bool, window: tuple[int, int]) -> Tensor:
    """(heads, queries, keys), aligned at the end of both, as flash-attention's masks are."""
    scale = q.shape[2] ** -0.5 if scale is None else scale
    scores = q.transpose(0, 1) @ _heads(k, q.shape[1]).transpose(1, 2) * scale
    query = torch.arange(q.shape[0])[:, None] + k.shape[0] - q.shape[0]
    key = torch.arange(k.shape[0])
    hidden = torch.zeros(q.shape[0], k.shape[0], dtype=torch.bool)
    if causal:
        hidden |= key > query
    if window[0] >= 0:
        hidden |= key < query - window[0]
    return scores.masked_fill(hidden, float("-inf"))
