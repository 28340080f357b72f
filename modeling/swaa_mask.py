"""The attention rule of SWAA (arXiv 2512.10411, section 3), written once, and the plain attention that defines it.

Every other attention in this repository computes the same thing faster and asks `attends` which keys count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Rule:
    """What one windowed layer sees.

    window: keys in the window, the query's own included (`sliding_window_size`).
    keep_first: tokens at the start of each sequence that every query sees, the sinks.
    fa_decode: whether generated tokens attend to everything before them.
    """

    window: int
    keep_first: int
    fa_decode: bool


@dataclass
class Tokens:
    """Who the queries or the keys of one call are. The batch size of any of them may be 1, for equal rows.

    position: (batch, length), counts the real tokens of a sequence from 0; padding has distinct negative values.
    start: (batch, length), the index in the row where the token's sequence starts; None without packing.
    dense: (batch, length), whether the token's query is dense (FA decode); None where none is, or for keys.
    """

    position: Tensor
    start: Tensor | None = None
    dense: Tensor | None = None

    def __getitem__(self, part: slice) -> "Tokens":
        """The tokens of a slice along the sequence."""
        return self._each(lambda field: field[:, part])

    def narrow(self, start: int, length: int) -> "Tokens":
        """`length` tokens from `start` on: as a slice, but for a compiler, which it doesn't tie to these numbers."""
        return self._each(lambda field: field.narrow(1, start, length))

    def gather(self, index: Tensor) -> "Tokens":
        """The tokens at `index` (batch, n), row by row."""
        return self._each(lambda field: field.expand(index.shape[0], -1).gather(1, index))

    def to(self, device: torch.device) -> "Tokens":
        return self._each(lambda field: field.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Tokens":
        start = None if self.start is None else change(self.start)
        dense = None if self.dense is None else change(self.dense)
        return Tokens(change(self.position), start, dense)


def attends(q_position: Tensor, k_position: Tensor, dense: Tensor | None, rule: Rule, padding: bool = True) -> Tensor:
    """Whether a query attends to a key of the same sequence: the rule itself.

    All arguments broadcast; dense: which queries are, or None where none is. padding: whether any position may be
    negative: a token without a real position is seen by itself only, so that its output stays finite.
    """
    visible = q_position - k_position < rule.window
    if rule.keep_first:
        visible = visible | (k_position < rule.keep_first)
    if dense is not None:
        visible = visible | dense
    seen = visible & (k_position <= q_position)
    return (seen & (k_position >= 0)) | (k_position == q_position) if padding else seen


def rule_mask(queries: Tokens, keys: Tokens, rule: Rule) -> Tensor:
    """The rule for every pair: bool of shape (batch, queries, keys)."""
    dense = queries.dense[:, :, None] if rule.fa_decode and queries.dense is not None else None
    mask = attends(queries.position[:, :, None], keys.position[:, None, :], dense, rule)
    if queries.start is not None and keys.start is not None:
        mask = mask & (queries.start[:, :, None] == keys.start[:, None, :])
    return mask


def combine(mask: Tensor, user_mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The rule's mask (batch, q, k) and the caller's 4D one (bool or additive) as one mask (batch, heads, q, k)."""
    mask = mask[:, None]
    if user_mask is None:
        return mask
    if user_mask.dtype == torch.bool:
        return mask & user_mask
    return torch.where(mask, user_mask.to(dtype), torch.finfo(dtype).min)


def take_columns(user_mask: Tensor, keys: Tokens) -> Tensor:
    """A 4D mask's columns for the given keys. Where a 4D mask is passed nothing is padding: position is index."""
    index = keys.position.clamp(0, user_mask.shape[-1] - 1)[:, None, None, :]
    shape = (max(user_mask.shape[0], index.shape[0]), *user_mask.shape[1:3])
    return user_mask.expand(*shape, -1).gather(3, index.expand(*shape, -1))


def repeat_heads(states: Tensor, groups: int) -> Tensor:
    """(batch, kv_heads, length, dim) to (batch, kv_heads * groups, length, dim)."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def eager_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Plain attention under a mask: the reference for every faster one.

    query: (batch, heads, q, dim); key, value: (batch, kv_heads, k, dim); mask: (batch, 1 or heads, q, k), bool or
    additive. Returns the output (batch, heads, q, dim) and the weights (batch, heads, q, k).
    """
    groups = query.shape[1] // key.shape[1]
    scores = query @ repeat_heads(key, groups).transpose(2, 3) * scaling
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout)
    return weights @ repeat_heads(value, groups), weights
