"""Windowed attention in plain PyTorch: blocks of queries against the sinks and the band of keys they can see.

Time and memory are O(queries * (window + sinks)), plus O(queries * keys) for dense queries only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from .swaa_mask import Rule, Tokens, combine, rule_mask, take_columns
from .swaa_state import LATER, SwaaState


@dataclass
class Block:
    """Queries [start, end) and the band of keys [low, high) that covers their windows."""

    start: int
    end: int
    low: int
    high: int


@dataclass
class Plan:
    """How one call is cut up. sinks: (1 or batch, keep_first) key indices, of unpacked rows; None if packed."""

    blocks: list[Block]
    sinks: Tensor | None


def blocked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tokens,
    state: SwaaState,
    rule: Rule,
    scaling: float,
    dropout: float = 0.0,
) -> Tensor:
    """The rule's attention, exactly.

    query: (batch, heads, q, dim); key, value: (batch, kv_heads, k, dim); keys: the k tokens. Returns
    (batch, heads, q, dim).
    """
    queries = state.queries.to(query.device)
    keys = keys.to(query.device)
    user_mask = None if state.user_mask is None else state.user_mask.to(query.device)
    if state.length is None:  # a static cache's length is on the device: no question asked
        outputs = []
        for rows in _parts(query.shape[2], block_size(rule.window)):
            slots = _static_columns(state, rows, queries, keys, rule)
            mask = None if user_mask is None else user_mask[:, :, rows]
            tile = (query[:, :, rows], key, value, queries[rows], keys, mask, slots, rule, scaling, dropout)
            outputs.append(_tile(*tile))
        return torch.cat(outputs, dim=2)
    if query.shape[2] <= block_size(rule.window) and key.shape[2] <= 2 * (rule.window + rule.keep_first):
        # Decoding: so few keys are not worth a choice. And these may be out of order, which a plan can't be.
        everything = slice(0, key.shape[2])
        return _tile(query, key, value, queries, keys, user_mask, everything, rule, scaling, dropout)
    plan = _plan(state, queries, keys, rule)
    outputs = []
    for block in plan.blocks:
        rows = slice(block.start, block.end)
        mask = None if user_mask is None else user_mask[:, :, rows]
        columns: slice | Tensor = slice(block.low, block.high)
        if block.low > 0 and rule.keep_first > 0:
            columns = _with_sinks(block, keys, plan.sinks, rule.keep_first)
        tokens = queries.narrow(block.start, block.end - block.start)
        tile = (query[:, :, rows], key, value, tokens, keys, mask, columns, rule, scaling, dropout)
        if torch.is_grad_enabled() and query.requires_grad:
            # Or every block would keep its own copy of its keys and its mask for the backward pass.
            outputs.append(checkpoint(_tile, *tile, use_reentrant=False))
        else:
            outputs.append(_tile(*tile))
    return torch.cat(outputs, dim=2)


def _tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: Tokens,
    keys: Tokens,
    user_mask: Tensor | None,
    columns: slice | Tensor,
    rule: Rule,
    scaling: float,
    dropout: float,
) -> Tensor:
    """Some queries against some columns: a slice, or (1 or batch, n) indices, a column named twice at index -1."""
    if isinstance(columns, slice):
        tokens = keys.narrow(columns.start, columns.stop - columns.start)
        key, value = key[:, :, columns], value[:, :, columns]
        mask = rule_mask(queries, tokens, rule)
    else:
        named = columns >= 0
        columns = columns.clamp(min=0)
        tokens = keys.gather(columns)
        mask = rule_mask(queries, tokens, rule) & named[:, None, :]
        key, value = _take(key, columns), _take(value, columns)
    if user_mask is not None:
        user_mask = take_columns(user_mask, tokens)
    return _grouped_attention(query, key, value, combine(mask, user_mask, query.dtype), scaling, dropout)


def _grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, dropout: float
) -> Tensor:
    """Attention under a mask (batch, 1 or heads, q, k). Heads that share keys become rows of one: no key is copied."""
    batch, heads, new, dim = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    if groups > 1:
        query = query.reshape(batch, kv_heads, groups * new, dim)
        rows, columns = mask.shape[0], mask.shape[3]
        if mask.shape[1] == 1:
            mask = mask[:, :, None].expand(rows, 1, groups, new, columns).reshape(rows, 1, groups * new, columns)
        else:
            mask = mask.reshape(rows, kv_heads, groups * new, columns)
    output = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return output.reshape(batch, heads, new, value.shape[3])


def _parts(count: int, size: int) -> list[slice]:
    # Neither a range over the count nor its minimum: a compiler would tie the graph to that one length.
    last = (count + size - 1) // size - 1
    return [slice(n * size, count if n == last else (n + 1) * size) for n in range(last + 1)]


def _static_columns(state: SwaaState, rows: slice, queries: Tokens, keys: Tokens, rule: Rule) -> slice | Tensor:
    """Which of a static cache's slots these queries may see, without asking the device how full it is."""
    count = keys.position.shape[1]
    dense = rule.fa_decode and queries.dense is not None
    if dense or keys.start is not None or rule.keep_first + rule.window + rows.stop - rows.start > count:
        return slice(0, count)
    name = state.plan_name("static", keys, rule, rows.start)
    if name not in state.plans:
        state.plans[name] = _find_slots(state, rows, queries[rows], keys, rule)
    found: Tensor = state.plans[name]
    return found


def _find_slots(state: SwaaState, rows: slice, queries: Tokens, keys: Tokens, rule: Rule) -> Tensor:
    """Slots of the sinks, of the window before the first query, and of the queries themselves: (1 or batch, n)."""
    device = keys.position.device
    # Padding sees only itself.
    first = torch.where(queries.position >= 0, queries.position, LATER).amin(dim=1, keepdim=True)
    low = first - (rule.window - 1)
    window = low + torch.arange(rule.window - 1, device=device)
    sinks = torch.arange(rule.keep_first, device=device).expand(low.shape[0], -1)
    position = torch.cat([torch.where(sinks < low, sinks, -1), window], dim=1)
    slots = position if state.aligned else torch.searchsorted(key_order(keys), position)
    slots = torch.where((position >= 0) & (slots < keys.position.shape[1]), slots, -1)
    assert isinstance(state.past, Tensor)
    own = state.past.to(device) + torch.arange(rows.start, rows.stop, device=device)
    return torch.cat([slots, own.expand(low.shape[0], -1)], dim=1)


def _take(states: Tensor, columns: Tensor) -> Tensor:
    """(batch, heads, k, dim) at (1 or batch, n): (batch, heads, n, dim)."""
    if columns.shape[0] == 1:
        return states.index_select(2, columns[0])
    batch, heads, _, dim = states.shape
    return states.gather(2, columns[:, None, :, None].expand(batch, heads, -1, dim))


def _with_sinks(block: Block, keys: Tokens, sinks: Tensor | None, keep_first: int) -> Tensor:
    """Columns of the sinks that lie before the band, then the band; -1 where a sink is in the band already."""
    band = torch.arange(block.low, block.high, device=keys.position.device)[None]
    if sinks is None:
        assert keys.start is not None
        # Only the sequence that the band's first key belongs to can have begun before the band.
        first = keys.start[:, block.low, None]
        sinks = first + torch.arange(keep_first, device=first.device)
    before = torch.where(sinks < block.low, sinks, -1)
    return torch.cat([before, band.expand(before.shape[0], -1)], dim=1)


def _plan(state: SwaaState, queries: Tokens, keys: Tokens, rule: Rule) -> Plan:
    """Cuts the queries into blocks; layers with the same keys share the result."""
    name = state.plan_name("blocks", keys, rule)
    if name not in state.plans:
        state.plans[name] = make_plan(state, queries, keys, rule, block_size(rule.window))
    plan: Plan = state.plans[name]
    return plan


def make_plan(state: SwaaState, queries: Tokens, keys: Tokens, rule: Rule, size: int) -> Plan:
    """Cuts the queries into blocks of `size` and finds the band of keys of each."""
    assert state.length is not None
    new, count = queries.position.shape[1], keys.position.shape[1]
    parts = _parts(new, size)
    starts = [part.start for part in parts]
    offset = int(state.past) if count > state.length else count - new
    sinks = torch.arange(rule.keep_first, device=keys.position.device)[None]
    if state.aligned:
        lows = [max(0, offset + start - rule.window + 1) for start in starts]
    else:
        order = key_order(keys)
        firsts = torch.tensor(starts, device=order.device) + offset
        lows = first_keys(order, queries, offset, firsts, size, rule.window).amin(dim=0).tolist()
        sinks = torch.searchsorted(order, sinks.expand(order.shape[0], -1).contiguous())
    dense = _dense_blocks(queries, rule, starts, size)
    blocks = []
    for part, low, is_dense in zip(parts, lows, dense, strict=True):
        blocks.append(Block(part.start, part.stop, 0 if is_dense else low, offset + part.stop))
    return Plan(blocks, None if keys.start is not None else sinks.clamp(max=count - 1))


def block_size(window: int) -> int:
    """Queries per block: a wide block wastes keys outside the window, a narrow one wastes calls."""
    return max(64, min(512, window))


def key_order(keys: Tokens) -> Tensor:
    """(1 or batch, k): how many real tokens came before, never falling along the row."""
    if keys.start is not None:
        return torch.arange(keys.position.shape[1], device=keys.position.device)[None]
    return keys.position.cummax(dim=1).values


def first_keys(order: Tensor, queries: Tokens, offset: int, starts: Tensor, size: int, window: int) -> Tensor:
    """The first key index in the window of each block's first real query: (1 or batch, blocks).

    starts: (blocks,), the key index of each block's first query.
    """
    position = starts[None]
    if queries.start is None:
        # Padding has no window; a block of nothing else has no say.
        far = torch.iinfo(torch.int64).max // 2
        position = torch.where(queries.position >= 0, queries.position, far)
        position = pad(position, (0, -position.shape[1] % size), value=far)
        position = position.reshape(position.shape[0], -1, size).amin(dim=2)
    low = torch.searchsorted(order.contiguous(), (position - (window - 1)).clamp(min=0).contiguous())
    # Every query must find itself in its band, padding too.
    return torch.minimum(low, starts[None])


def _dense_blocks(queries: Tokens, rule: Rule, starts: list[int], size: int) -> list[bool]:
    """Whether each block holds a dense query, which sees every key before it."""
    if queries.dense is None or not rule.fa_decode:
        return [False] * len(starts)
    any_row = queries.dense.any(dim=0)
    return torch.stack([any_row[start : start + size].any() for start in starts]).tolist()
