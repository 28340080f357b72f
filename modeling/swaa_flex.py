"""Windowed attention through FlexAttention: the rule is its mask, and the key blocks it needs follow from the plan."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .swaa_blocks import Plan, make_plan
from .swaa_mask import Rule, Tokens, attends
from .swaa_state import SwaaState

# FlexAttention's own block size, of queries and of keys.
BLOCK = 128

_compiled: dict[str, Callable[..., Any]] = {}


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tokens, state: SwaaState, rule: Rule, scaling: float
) -> Tensor:
    """The rule's attention, exactly. Shapes as in `blocked_attention`. Raises NotImplementedError on a CPU backward."""
    if query.device.type == "cpu" and query.requires_grad:
        raise NotImplementedError(
            "flex_attention has no backward pass on the CPU; load with attn_implementation='sdpa'"
        )
    mask = _block_mask(query, keys.to(query.device), state, rule)
    groups = query.shape[1] // key.shape[1]
    kernel = _kernel(query.device.type)
    output: Tensor = kernel(query, key, value, block_mask=mask, scale=scaling, enable_gqa=groups > 1)
    return output


def _kernel(device: str) -> Callable[..., Any]:
    """FlexAttention is only fused, and only linear in memory, when compiled."""
    from torch.nn.attention.flex_attention import flex_attention as eager_flex

    if torch.compiler.is_compiling():
        return eager_flex
    if device not in _compiled:

        def swaa_flex(*args: Any, **kwargs: Any) -> Any:
            # The compiler's memory is kept per function: transformers' own calls must not meet ours in it.
            return eager_flex(*args, **kwargs)

        # On the CPU, torch 2.13 generates code that doesn't compile for lengths that change.
        _compiled[device] = torch.compile(swaa_flex, dynamic=False if device == "cpu" else None)
    return _compiled[device]


def _block_mask(query: Tensor, keys: Tokens, state: SwaaState, rule: Rule) -> Any:
    """The BlockMask of this call, shared by the layers that have the same keys."""
    from torch.nn.attention.flex_attention import BlockMask

    batch, new, count = query.shape[0], query.shape[2], keys.position.shape[1]
    name = ("flex", count, rule, query.device)
    if name not in state.plans:
        queries = state.queries.to(query.device)
        plan = make_plan(state, queries, keys, rule, BLOCK)
        needed = _needed_blocks(plan, keys, rule, count)
        indices = (~needed).to(torch.uint8).argsort(dim=-1, stable=True).to(torch.int32)
        state.plans[name] = BlockMask.from_kv_blocks(
            needed.sum(dim=-1, dtype=torch.int32)[:, None],
            indices[:, None],
            BLOCK_SIZE=BLOCK,
            mask_mod=_mask_mod(queries, keys, rule, batch),
            seq_lengths=(new, count),
        )
    return state.plans[name]


def _needed_blocks(plan: Plan, keys: Tokens, rule: Rule, count: int) -> Tensor:
    """Which key blocks each query block may see: bool (1 or batch, query blocks, key blocks)."""
    device = keys.position.device
    low = torch.tensor([block.low for block in plan.blocks], device=device)
    high = torch.tensor([block.high for block in plan.blocks], device=device)
    block = torch.arange(-(-count // BLOCK), device=device)
    needed = ((block >= low[:, None] // BLOCK) & (block <= (high[:, None] - 1) // BLOCK))[None]
    if rule.keep_first == 0:
        return needed
    if plan.sinks is not None:
        first, last = plan.sinks[:, :1], plan.sinks[:, -1:]
    else:
        assert keys.start is not None
        first = keys.start[:, low]
        last = first + rule.keep_first - 1
    sinks = (block >= first[..., None] // BLOCK) & (block <= last[..., None] // BLOCK)
    return needed | (sinks & (block <= (high[:, None] - 1) // BLOCK))


def _mask_mod(queries: Tokens, keys: Tokens, rule: Rule, batch: int) -> Callable[..., Tensor]:
    """The rule in FlexAttention's terms: a function of batch, head, query and key index."""
    q_position = queries.position.expand(batch, -1).contiguous()
    k_position = keys.position.expand(batch, -1).contiguous()
    dense = queries.dense if rule.fa_decode else None
    dense = torch.zeros_like(q_position, dtype=torch.bool) if dense is None else dense.expand(batch, -1).contiguous()
    if queries.start is None or keys.start is None:

        def unpacked(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return attends(q_position[b, q], k_position[b, k], dense[b, q], rule)

        return unpacked
    q_start, k_start = queries.start.expand(batch, -1).contiguous(), keys.start.expand(batch, -1).contiguous()

    def packed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same = q_start[b, q] == k_start[b, k]
        return same & attends(q_position[b, q], k_position[b, k], dense[b, q], rule)

    return packed
