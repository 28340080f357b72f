"""Windowed attention through flash-attention 2 or 3: its own window, then the sinks, merged by log-sum-exp.

A query before `window + keep_first` sees all keys before it, which is plain causal attention. A later one's window no
longer reaches the sinks, so that the two passes look at different keys and their merge is exact.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .swaa_flex import fall_back, many_variants
from .swaa_mask import Rule, Tokens
from .swaa_state import LATER, SwaaState

FLASH_LIBRARIES = {"flash_attention_2": "flash_attn.flash_attn_interface", "flash_attention_3": "flash_attn_interface"}

# Queries per range of the pass over the sinks: a backward pass works on one block of keys per range at a time.
SINK_QUERIES = 1024

# Where the merge of two passes isn't compiled: that a CPU could do it faster isn't worth the wait.
_without_compiler = {"cpu"}

# Which tokens of a flat sequence of tokens take part: neighbours, which needs no copy, or any.
Part = slice | Tensor


@dataclass
class Pass:
    """One call of the library: queries against keys of the same sequences, both flat.

    lengths: of each sequence, in queries and in keys; window: keys a query sees, counted from its own back, or None.
    """

    queries: Part
    keys: Part
    lengths: list[tuple[int, int]]
    causal: bool
    window: int | None = None


@dataclass
class Passes:
    """All calls for one windowed layer. tokens, keys: the real ones of (batch * length), or None for all."""

    tokens: Tensor | None
    keys: Tensor | None
    early: Pass
    late: Pass | None
    sinks: Pass | None


def takes_flash(query: Tensor, state: SwaaState, rule: Rule) -> bool:
    """Whether the caller's library can compute this: it knows neither dense queries nor a caller's mask."""
    if state.backend not in FLASH_LIBRARIES or state.user_mask is not None or state.length is None:
        return False
    if torch.compiler.is_compiling() or (rule.fa_decode and state.queries.dense is not None):
        return False
    trains = torch.is_grad_enabled() and query.requires_grad
    return query.shape[2] > 1 and not (trains and state.backend == "flash_attention_3")


def two_pass_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tokens, state: SwaaState, rule: Rule, scaling: float
) -> Tensor:
    """The rule's attention, exactly. Shapes as in `blocked_attention`; the output of padding is 0."""
    batch, heads, new, _ = query.shape
    passes = _shared_passes(keys.to(query.device), state, rule, batch)
    library = importlib.import_module(FLASH_LIBRARIES[state.backend])
    flat = [_flat(states, rows) for states, rows in ((query, passes.tokens), (key, passes.keys), (value, passes.keys))]
    output: Tensor = TwoPasses.apply(*flat, passes, library, scaling)  # type: ignore[no-untyped-call]
    if passes.tokens is not None:
        whole = output.new_zeros(batch * new, *output.shape[1:])
        output = whole.index_copy(0, passes.tokens, output)
    return output.reshape(batch, new, heads, -1).transpose(1, 2)


class TwoPasses(torch.autograd.Function):
    """Forward and backward of all passes. The library's own backward pass is exact for a part of the keys if it is
    given the output and the log-sum-exp over all of them.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, passes: Passes, library: Any, scaling: float
    ) -> Tensor:
        output = query.new_empty(*query.shape[:2], value.shape[2])
        lse = torch.empty(query.shape[1], query.shape[0], dtype=torch.float32, device=query.device)
        parts = (query, key, value)
        if passes.early.lengths:
            output[passes.early.queries], lse[:, passes.early.queries] = _run(library, parts, passes.early, scaling)
        if passes.late is not None:
            found = _run(library, parts, passes.late, scaling)
            if passes.sinks is not None:
                found = _merge(*found, *_run(library, parts, passes.sinks, scaling))
            output[passes.late.queries], lse[:, passes.late.queries] = found
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.call = passes, library, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        passes, library, scaling = ctx.call
        of_query = torch.zeros_like(saved[0])
        # Passes overlap in their keys: sums in float32.
        totals = [torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device) for tensor in saved[1:3]]
        for call in (passes.early, passes.late, passes.sinks):
            if call is not None and call.lengths:
                found = _run_backward(library, gradients[0], saved, call, scaling)
                of_query[call.queries] += found[0]
                for total, gradient in zip(totals, found[1:], strict=True):
                    _accumulate(total, call.keys, gradient)
        return (of_query, *(total.to(saved[0].dtype) for total in totals), None, None, None)


def _run(library: Any, states: tuple[Tensor, Tensor, Tensor], call: Pass, scaling: float) -> tuple[Tensor, Tensor]:
    """Output (queries, heads, dim) and log-sum-exp (heads, queries) of one pass."""
    query, key, value = states
    result = library.flash_attn_varlen_func(
        query[call.queries],
        key[call.keys],
        value[call.keys],
        **_bounds(call, query.device),
        softmax_scale=scaling,
        causal=call.causal,
        window_size=_window(call),
        return_attn_probs=True,
    )
    output, lse = result[:2]
    if lse.shape != (output.shape[1], output.shape[0]):
        raise NotImplementedError("this flash-attn is too old for SWAA: install 2.7 or newer, or load with 'sdpa'")
    return output, lse


def _run_backward(
    library: Any, gradient: Tensor, saved: tuple[Tensor, ...], call: Pass, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one pass's queries, keys and values, from the output and the log-sum-exp over all passes."""
    query, key, value, output, lse = saved
    states = query[call.queries], key[call.keys], value[call.keys]
    gradients = tuple(torch.empty_like(part) for part in states)
    left, right = _window(call)
    library._flash_attn_varlen_backward(
        gradient[call.queries].contiguous(),
        *states,
        output[call.queries],
        lse[:, call.queries].contiguous(),
        *gradients,
        **_bounds(call, query.device),
        dropout_p=0.0,
        softmax_scale=scaling,
        causal=call.causal,
        window_size_left=left,
        window_size_right=right,
        softcap=0.0,
        alibi_slopes=None,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return gradients  # type: ignore[return-value]


def _accumulate(total: Tensor, part: Part, gradient: Tensor) -> None:
    if isinstance(part, slice):
        total[part] += gradient
    else:  # the sinks are named once for each range of queries
        total.index_add_(0, part, gradient.to(total.dtype))


def _window(call: Pass) -> tuple[int, int]:
    return (-1, -1) if call.window is None else (call.window - 1, 0)


def _bounds(call: Pass, device: torch.device) -> dict[str, Any]:
    queries, keys = zip(*call.lengths, strict=True)
    return {
        "cu_seqlens_q": _cumulative(queries, device),
        "cu_seqlens_k": _cumulative(keys, device),
        "max_seqlen_q": max(queries),
        "max_seqlen_k": max(keys),
    }


def _cumulative(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return ends.to(device=device, dtype=torch.int32)


def _merge(output: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two disjoint sets of keys, from that over each."""
    call = output, lse, other, other_lse
    if output.device.type not in _without_compiler:
        try:
            with many_variants():
                result: tuple[Tensor, Tensor] = _fused_merge()(*call)
            return result
        except Exception as error:
            fall_back("the merge of two passes can't be compiled here", error, "plain PyTorch does it")
            _without_compiler.add(output.device.type)
    return _merged(*call)


@functools.cache
def _fused_merge() -> Callable[..., Any]:
    return torch.compile(_merged, dynamic=True)


def _merged(output: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    share = torch.sigmoid(lse - other_lse).t()[..., None]
    merged = output.float() * share + other.float() * (1 - share)
    return merged.to(output.dtype), torch.logaddexp(lse, other_lse)


def _flat(states: Tensor, rows: Tensor | None) -> Tensor:
    """(batch, heads, length, dim) as (tokens, heads, dim)."""
    flat = states.transpose(1, 2).flatten(0, 1)
    return flat if rows is None else flat.index_select(0, rows)


def _shared_passes(keys: Tokens, state: SwaaState, rule: Rule, batch: int) -> Passes:
    """The call's passes, worked out once for all layers that have the same keys."""
    name = state.plan_name("flash", keys, rule)
    if name not in state.plans:
        state.plans[name] = _passes(keys, state, rule, batch)
    passes: Passes = state.plans[name]
    return passes


def _passes(keys: Tokens, state: SwaaState, rule: Rule, batch: int) -> Passes:
    queries = state.queries.to(keys.position.device)
    new, count = queries.position.shape[1], keys.position.shape[1]
    tokens = real_keys = None
    if state.aligned and count <= (state.length or 0):
        lengths = [(new, count)] * batch
    elif queries.start is not None:
        lengths = _packed_lengths(queries.start, batch)
    else:
        tokens = _real(queries, batch)
        real_keys = _real(keys, batch)
        lengths = _lengths(queries, keys, batch)
    return Passes(tokens, real_keys, *_cut(lengths, rule, keys.position.device))


def _real(tokens: Tokens, batch: int) -> Tensor:
    """Flat indices of the tokens that are neither padding nor free slots of a static cache."""
    real = (tokens.position >= 0) & (tokens.position < LATER)
    return real.expand(batch, -1).reshape(-1).nonzero()[:, 0]


def _packed_lengths(starts: Tensor, batch: int) -> list[tuple[int, int]]:
    """Queries and keys of each sequence, which are the same tokens."""
    rows = torch.arange(batch, device=starts.device)[:, None] * starts.shape[1]
    counts = torch.unique_consecutive((starts.expand(batch, -1) + rows).reshape(-1), return_counts=True)[1]
    return [(count, count) for count in counts.tolist()]


def _lengths(queries: Tokens, keys: Tokens, batch: int) -> list[tuple[int, int]]:
    """Real queries and keys of each row."""
    numbers = [
        ((tokens.position >= 0) & (tokens.position < LATER)).sum(dim=1).expand(batch).tolist()
        for tokens in (queries, keys)
    ]
    return list(zip(*numbers, strict=True))


def _cut(lengths: list[tuple[int, int]], rule: Rule, device: torch.device) -> tuple[Pass, Pass | None, Pass | None]:
    """Each sequence's queries, early and late, and the keys that they see. Queries are a sequence's last tokens."""
    limit = rule.window + rule.keep_first
    early, late, sinks = _Parts(), _Parts(), _Parts()
    first_query = first_key = 0
    for queries, keys in lengths:
        start = keys - queries
        split = min(max(limit, start), keys)  # the first late query
        turn, end = first_query + split - start, first_query + queries
        if split > start:
            early.add((first_query, turn), (first_key, first_key + split))
        if keys > split:
            late.add((turn, end), (first_key + split - rule.window + 1, first_key + keys))
            for part in range(turn, end, SINK_QUERIES):
                sinks.add((part, min(part + SINK_QUERIES, end)), (first_key, first_key + rule.keep_first))
        first_query, first_key = end, first_key + keys
    return (
        early.as_pass(device, True),
        late.as_pass(device, True, rule.window) if late.queries else None,
        sinks.as_pass(device, False) if late.queries and rule.keep_first else None,
    )


class _Parts:
    """Ranges of flat queries and keys, one of each per sequence."""

    def __init__(self) -> None:
        self.queries: list[tuple[int, int]] = []
        self.keys: list[tuple[int, int]] = []

    def add(self, queries: tuple[int, int], keys: tuple[int, int]) -> None:
        self.queries.append(queries)
        self.keys.append(keys)

    def as_pass(self, device: torch.device, causal: bool, window: int | None = None) -> Pass:
        lengths = [(q[1] - q[0], k[1] - k[0]) for q, k in zip(self.queries, self.keys, strict=True)]
        return Pass(_part(self.queries, device), _part(self.keys, device), lengths, causal, window)


def _part(ranges: list[tuple[int, int]], device: torch.device) -> Part:
    if all(end == start for (_, end), (start, _) in zip(ranges, ranges[1:], strict=False)):
        return slice(ranges[0][0], ranges[-1][1]) if ranges else slice(0, 0)
    return torch.cat([torch.arange(start, end) for start, end in ranges]).to(device)
