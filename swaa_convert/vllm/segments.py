"""How one batch of paged queries falls apart into pieces that ordinary attention kernels compute, without asking the
device for any number: shapes depend on the batch's shape only, so the same arithmetic serves CUDA graphs.

A request's new queries are, in order of their positions p:
  head: p < window + keep_first; its window and the sinks together are everything before it;
  middle: windowed; window and sinks don't overlap;
  tail: dense (FA decode).
Head and tail are plain causal attention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from swaa_convert.vllm.shipped.swaa_mask import Rule

NEVER = 2**30


@dataclass
class Queries:
    """The new queries of a batch, on the device.

    starts: (requests + 1,) where each request's queries start; lengths: (requests,) its tokens so far, the new ones
    included; prompts: (requests,) its prompt's length. All int32. Padding requests have no queries.
    """

    starts: Tensor
    lengths: Tensor
    prompts: Tensor

    @property
    def first(self) -> Tensor:
        """The position of each request's first new query."""
        return self.lengths - (self.starts[1:] - self.starts[:-1])

    def dense_from(self, rule: Rule, fa_tail: int) -> Tensor:
        """From which position on each request's queries are dense."""
        return self.prompts - fa_tail if rule.fa_decode else torch.full_like(self.prompts, NEVER)


@dataclass
class Pieces:
    """One batch as several, each of which sees the keys of its own kind only.

    starts: (pieces + 1,) where each piece's queries start; per: pieces per request.
    plain, windowed: (pieces,) keys of the piece in the plain and in the windowed kernel, up to its last query; one of
    the two is 0.
    """

    starts: Tensor
    per: int
    plain: Tensor
    windowed: Tensor

    def sinks(self, keep_first: int) -> Tensor:
        """(pieces,) sinks beside the window."""
        return torch.where(self.windowed > 0, keep_first, 0).to(self.windowed.dtype)

    def plain_rows(self, rows: int) -> Tensor:
        """(rows,) bool, which queries the plain kernel computes. Rows past the last piece are padding."""
        index = torch.arange(rows, device=self.starts.device, dtype=self.starts.dtype)
        piece = torch.searchsorted(self.starts[1:], index, right=True).clamp(max=len(self.plain) - 1)
        return self.windowed[piece] == 0


def cut(queries: Queries, rule: Rule, fa_tail: int) -> Pieces:
    """Three pieces per request: head, middle and tail, of which any may be empty."""
    first, end = queries.first, queries.lengths
    head = torch.full_like(first, rule.window + rule.keep_first).clamp(first, end)
    tail = torch.minimum(torch.maximum(queries.dense_from(rule, fa_tail), head), end)
    none = torch.zeros_like(first)
    bounds = torch.stack([first, head, tail], dim=1) - first[:, None] + queries.starts[:-1, None]
    plain = torch.stack([head, none, end], dim=1)
    windowed = torch.stack([none, torch.where(tail > head, tail, 0), none], dim=1)
    starts = torch.cat([bounds.flatten(), queries.starts[-1:]])
    return Pieces(starts.to(queries.starts.dtype), 3, plain.flatten(), windowed.flatten().to(plain.dtype))


def whole(queries: Queries, rule: Rule, fa_tail: int) -> Pieces:
    """One piece per request, where each has one query: it is of one kind."""
    first = queries.first
    is_plain = (first < rule.window + rule.keep_first) | (first >= queries.dense_from(rule, fa_tail))
    none = torch.zeros_like(first)
    return Pieces(
        queries.starts, 1, torch.where(is_plain, queries.lengths, none), torch.where(is_plain, none, queries.lengths)
    )


def halves(queries: Queries, rule: Rule, fa_tail: int) -> tuple[Tensor, Tensor, Tensor]:
    """For a kernel that knows prefix and window: two pieces per request, windowed and dense.

    Returns starts (2 * requests + 1,), keys and visible prefix (2 * requests,).
    """
    first, end = queries.first, queries.lengths
    middle = torch.minimum(torch.maximum(queries.dense_from(rule, fa_tail), first), end)
    bounds = torch.stack([first, middle], dim=1) - first[:, None] + queries.starts[:-1, None]
    starts = torch.cat([bounds.flatten(), queries.starts[-1:]]).to(queries.starts.dtype)
    keys = torch.stack([middle, end], dim=1).flatten()
    prefix = torch.tensor([rule.keep_first, NEVER], dtype=keys.dtype, device=keys.device).repeat(len(first))
    return starts, keys, prefix


def prefix_of_one(queries: Queries, rule: Rule, fa_tail: int) -> Tensor:
    """The visible prefix (requests,) where each request has one query."""
    dense = queries.first >= queries.dense_from(rule, fa_tail)
    return torch.where(dense, NEVER, rule.keep_first).to(queries.lengths.dtype)
