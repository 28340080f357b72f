"""Which blocks of keys each block of queries needs, for FlexAttention: worked out from the rule, never point by point.

A block is full where every pair of it attends: the kernel then asks no questions. In the others it evaluates the rule.
"""

import inspect
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad

from .swaa_blocks import first_keys, key_order
from .swaa_mask import Rule, Tokens, attends
from .swaa_state import SwaaState

# FlexAttention's own block size, of queries and of keys.
BLOCK = 128
# Positions are compared in 32 bits, which is faster. No sequence is as long.
FAR = 2**30

# While PyTorch makes a BlockMask it keeps a note in a global (2.13), which two threads at once break, or leave behind
# for the compiler to obey. One lock for the process, so for the code of all repos in it.
_one_at_a_time = vars(torch.nn.attention.flex_attention).setdefault("_swaa_lock", threading.Lock())

# Spares the lists that only a backward pass reads, where this version of PyTorch can.
_KNOWN = inspect.signature(BlockMask.from_kv_blocks).parameters
FORWARD_ONLY: dict[str, Any] = {"compute_q_blocks": False} if "compute_q_blocks" in _KNOWN else {}


@dataclass
class Extent:
    """The least and the greatest of each block of tokens. Shapes (1 or batch, blocks).

    low, high: of the positions of real tokens; solid: whether all tokens are real; start_low, start_high: of the
    indices where the tokens' sequences start, with packing.
    """

    low: Tensor
    high: Tensor
    solid: Tensor
    start_low: Tensor | None
    start_high: Tensor | None


@dataclass(frozen=True)
class Form:
    """How the kernel finds out who a query and a key are, from the fastest way on.

    keys: "index" where a key's position is its index; "runs" where it is its index less the one at which the query's
    sequence starts; "tokens" where it must be looked up. own_queries: whether a query's position is its index too;
    dense: whether some queries are.
    """

    keys: str
    own_queries: bool
    dense: bool


def form_of(keys: Tokens, state: SwaaState, rule: Rule) -> Form:
    """The form of a call; keys: its k tokens."""
    dense = rule.fa_decode and state.queries.dense is not None
    whole = keys.position.shape[1] >= (state.length or 0)
    if state.aligned and whole:
        return Form("index", isinstance(state.past, int) and state.past == 0, dense)
    if whole and not torch.compiler.is_compiling():
        first = _sequence_starts(keys)
        index = torch.arange(keys.position.shape[1], device=first.device)
        if bool(((keys.position < 0) | (keys.position >= FAR) | (keys.position == index - first)).all()):
            return Form("runs", False, dense)
    return Form("tokens", False, dense)


def _sequence_starts(keys: Tokens) -> Tensor:
    """(1 or batch, k): the index at which each key's sequence starts; without packing, that of the first real key."""
    if keys.start is not None:
        return keys.start
    return (keys.position >= 0).to(torch.uint8).argmax(dim=1, keepdim=True).expand(-1, keys.position.shape[1])


def block_mask(query: Tensor, keys: Tokens, state: SwaaState, rule: Rule, form: Form, backward: bool) -> BlockMask:
    """The BlockMask of one call. query: (batch, heads, q, dim); keys: the k tokens.

    backward: also name the queries that each block of keys needs.
    """
    queries = state.queries.to(query.device)
    new, count = queries.position.shape[1], keys.position.shape[1]
    blocks, valid = _candidates(queries, keys, state, rule)
    full = valid & _are_full(blocks, queries, keys, rule)
    width = -(-count // BLOCK)
    # What is made from the lists for a backward pass reads the number of key blocks from their shape.
    # So does the CPU's kernel.
    wide = backward or not FORWARD_ONLY or query.device.type == "cpu"
    listed = _all_listed if query.device.type == "cpu" else _listed
    some, all_ = listed(valid & ~full, blocks, width, wide), listed(full, blocks, width, wide)
    mask_mod = _mask_mod(queries, keys, state, rule, form, query.shape[0])
    with nullcontext() if torch.compiler.is_compiling() else _one_at_a_time:
        return BlockMask.from_kv_blocks(
            *some,
            *all_,
            BLOCK_SIZE=BLOCK,
            mask_mod=mask_mod,
            seq_lengths=(new, count),
            **({} if wide else FORWARD_ONLY),
        )


def _candidates(queries: Tokens, keys: Tokens, state: SwaaState, rule: Rule) -> tuple[Tensor, Tensor]:
    """Key blocks (1 or batch, query blocks, n) that may be needed, in order, and which of them are."""
    new, count = queries.position.shape[1], keys.position.shape[1]
    offset, device = _offset(queries, keys, state), keys.position.device
    starts = torch.arange(0, new, BLOCK, device=device) + offset
    last = (starts + BLOCK - 1).clamp(max=offset + new - 1)[None] // BLOCK
    dense = _blocks(queries.dense, False).any(dim=2) if rule.fa_decode and queries.dense is not None else None
    if state.aligned:
        low = (starts - (rule.window - 1)).clamp(min=0)[None]
        sinks = torch.zeros_like(low)
        sinks_end = sinks + rule.keep_first
    else:
        order = key_order(keys)
        low = first_keys(order, queries, offset, starts, BLOCK, rule.window)
        sinks, sinks_end = _sink_range(order, keys, low, rule.keep_first)
    if dense is not None:
        low = torch.where(dense, 0, low)
    first = low // BLOCK
    blocks = -(-count // BLOCK)
    if dense is not None or torch.compiler.is_compiling():
        band = blocks
    elif state.aligned:
        # A block's queries see a run of `window + BLOCK - 1` keys, which may begin anywhere in a block.
        band = min(blocks, (rule.window + 3 * BLOCK - 3) // BLOCK)
    else:
        band = int((last - first).max()) + 1
    band_blocks = first[..., None] + torch.arange(band, device=device)
    lists, valid = [band_blocks], [band_blocks <= last[..., None]]
    if rule.keep_first:
        span = torch.arange(_sink_span(sinks, sinks_end, keys, state, rule, blocks), device=device)
        sink_blocks = sinks[..., None] // BLOCK + span
        lists.insert(0, sink_blocks)
        valid.insert(0, (sink_blocks < first[..., None]) & (sink_blocks * BLOCK < sinks_end[..., None]))
    rows = max(part.shape[0] for part in (*lists, *valid))
    lists, valid = ([part.expand(rows, first.shape[1], -1) for part in parts] for parts in (lists, valid))
    return torch.cat(lists, dim=2).clamp(max=blocks - 1), torch.cat(valid, dim=2)


def _sink_span(sinks: Tensor, sinks_end: Tensor, keys: Tokens, state: SwaaState, rule: Rule, blocks: int) -> int:
    """How many blocks the sinks of one sequence touch at most."""
    if state.aligned or keys.start is not None:
        return min(blocks, (rule.keep_first + BLOCK - 2) // BLOCK + 1)
    if torch.compiler.is_compiling():
        return blocks
    # Padding of a later turn, or slots that a shorter row left empty, may lie between a row's first tokens.
    ends = (sinks_end - 1).clamp(max=keys.position.shape[1] - 1) // BLOCK
    return min(blocks, int((ends - sinks // BLOCK).max()) + 1)


def _sink_range(order: Tensor, keys: Tokens, low: Tensor, keep_first: int) -> tuple[Tensor, Tensor]:
    """The indices from the first sink on, up to the last, of each query block: (1 or batch, query blocks) each."""
    if keys.start is not None:
        # Only the sequence that the band's first key belongs to can have begun before the band.
        first = keys.start.gather(1, low.expand(keys.start.shape[0], -1))
        return first, first + keep_first
    ends = torch.tensor([0, max(keep_first - 1, 0)], device=order.device).expand(order.shape[0], 2)
    first, last = torch.searchsorted(order, ends.contiguous()).unbind(dim=1)
    return first[:, None].expand(-1, low.shape[1]), (last + 1)[:, None].expand(-1, low.shape[1])


def _are_full(blocks: Tensor, queries: Tokens, keys: Tokens, rule: Rule) -> Tensor:
    """Whether every pair of a query block and the key blocks named for it attends: bool, as `blocks`."""
    of_queries, of_keys = _extent(queries), _extent(keys)
    rows = max(blocks.shape[0], of_queries.low.shape[0], of_keys.low.shape[0])

    def at_keys(values: Tensor) -> Tensor:
        wide = values[:, None].expand(rows, blocks.shape[1], -1)
        return wide.gather(2, blocks.expand(rows, -1, -1))

    q_low, q_high = of_queries.low[..., None], of_queries.high[..., None]
    k_low, k_high = at_keys(of_keys.low), at_keys(of_keys.high)
    visible = (k_high < rule.keep_first) | (q_high - k_low < rule.window)
    if rule.fa_decode and queries.dense is not None:
        visible |= _blocks(queries.dense, False).all(dim=2)[..., None]
    full = visible & (k_high <= q_low) & of_queries.solid[..., None] & at_keys(of_keys.solid)
    if of_queries.start_low is not None and of_keys.start_low is not None:
        assert of_queries.start_high is not None and of_keys.start_high is not None
        start = of_queries.start_low[..., None]
        full &= (start == of_queries.start_high[..., None]) & (start == at_keys(of_keys.start_low))
        full &= start == at_keys(of_keys.start_high)
    return full


def _extent(tokens: Tokens) -> Extent:
    position = tokens.position
    # Missing tokens of the last block count as padding.
    low = _blocks(torch.where(position >= 0, position, FAR), FAR).amin(dim=2)
    solid = (_blocks(position, -1) >= 0).all(dim=2)
    high = _blocks(position, -1).amax(dim=2)
    if tokens.start is None:
        return Extent(low, high, solid, None, None)
    starts = _blocks(tokens.start, 0)
    return Extent(low, high, solid, starts.amin(dim=2), starts.amax(dim=2))


def _blocks(values: Tensor, missing: int | bool) -> Tensor:
    """(rows, length) cut into (rows, blocks, BLOCK)."""
    values = pad(values, (0, -values.shape[1] % BLOCK), value=missing)
    return values.reshape(values.shape[0], -1, BLOCK)


def _all_listed(chosen: Tensor, blocks: Tensor, width: int, wide: bool) -> tuple[Tensor, Tensor]:
    """As `_listed`, and behind those all other blocks, each once.

    Before PyTorch 2.8 the CPU's kernel reads neither the counts nor the list of full blocks: it asks the rule about
    every key of the first list, where a block that stood twice would count twice.
    """
    rows = max(chosen.shape[0], blocks.shape[0])
    each = torch.arange(width, device=blocks.device).expand(rows, blocks.shape[1], width)
    # What isn't chosen may be a block that stands there already.
    counts = torch.zeros_like(each).scatter_add(2, blocks.expand(rows, -1, -1), chosen.long().expand(rows, -1, -1))
    return _listed(counts > 0, each, width, wide)


def _listed(chosen: Tensor, blocks: Tensor, width: int, wide: bool) -> tuple[Tensor, Tensor]:
    """How many blocks are chosen, (rows, 1, query blocks), and which: the first of (rows, 1, query blocks, n)."""
    rows = max(chosen.shape[0], blocks.shape[0])
    order = (~chosen).to(torch.uint8).argsort(dim=2, stable=True)
    listed = blocks.expand(rows, -1, -1).gather(2, order.expand(rows, -1, -1))[:, :, :width]
    if wide:
        listed = pad(listed, (0, width - listed.shape[2]))
    count = chosen.sum(dim=2, dtype=torch.int32).expand(rows, -1)
    return count[:, None].contiguous(), listed[:, None].to(torch.int32).contiguous()


def _mask_mod(
    queries: Tokens, keys: Tokens, state: SwaaState, rule: Rule, form: Form, batch: int
) -> Callable[..., Tensor]:
    """The rule in FlexAttention's terms: a function of batch, head, query and key index."""
    dense = queries.dense.expand(batch, -1).contiguous() if form.dense and queries.dense is not None else None
    if form.own_queries and dense is None:

        def plain(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return attends(q, k, None, rule, padding=False)

        return plain
    if form.keys == "tokens":
        return _token_rule(queries, keys, dense, rule, batch)
    first = _query_starts(queries, keys, form, batch)
    index = torch.arange(queries.position.shape[1], device=first.device) + _offset(queries, keys, state)
    place = _short(index - first, batch)
    if form.keys == "index":

        def indexed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return attends(place[b, q], k, None if dense is None else dense[b, q], rule, padding=False)

        return indexed
    first = _short(first, batch)

    def runs(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        # What lies before the query's sequence has a negative position in it: padding, or another sequence.
        return attends(place[b, q], k - first[b, q], None if dense is None else dense[b, q], rule)

    return runs


def _query_starts(queries: Tokens, keys: Tokens, form: Form, batch: int) -> Tensor:
    """(1 or batch, q): the key index at which each query's sequence starts."""
    if form.keys == "index":
        return torch.zeros((1, 1), dtype=torch.long, device=keys.position.device)
    starts = queries.start if queries.start is not None else _sequence_starts(keys)[:, :1]
    return starts.expand(-1, queries.position.shape[1])


def _token_rule(queries: Tokens, keys: Tokens, dense: Tensor | None, rule: Rule, batch: int) -> Callable[..., Tensor]:
    q_position, k_position = _short(queries.position, batch), _short(keys.position, batch)
    if queries.start is None or keys.start is None:

        def unpacked(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return attends(q_position[b, q], k_position[b, k], None if dense is None else dense[b, q], rule)

        return unpacked
    q_start, k_start = _short(queries.start, batch), _short(keys.start, batch)

    def packed(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        same = q_start[b, q] == k_start[b, k]
        return same & attends(q_position[b, q], k_position[b, k], None if dense is None else dense[b, q], rule)

    return packed


def _offset(queries: Tokens, keys: Tokens, state: SwaaState) -> int:
    """The key index of the first query."""
    new, count = queries.position.shape[1], keys.position.shape[1]
    assert state.length is not None
    return int(state.past) if count > state.length else count - new


def _short(values: Tensor, batch: int) -> Tensor:
    return values.clamp(-FAR, FAR).to(torch.int32).expand(batch, -1).contiguous()
