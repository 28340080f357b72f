"""What the windowed layers need to know about one forward pass, worked out once by the base model."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .swaa_cache import SinkWindowLayer
from .swaa_mask import Rule, Tokens

# The position of a static cache's free slots: later than any query.
LATER = torch.iinfo(torch.int64).max // 2


@dataclass
class SwaaState:
    """One forward pass.

    backend: the caller's `attn_implementation`.
    queries, keys: the tokens of this call, and all tokens up to its end. A static cache holds more keys than
        tokens: those are later than every query.
    past: tokens before this call; a tensor with a static cache.
    length: tokens up to the end of this call, where known without asking the device.
    all_dense: every query is dense (ordinary decoding with FA decode).
    user_mask: the caller's own 4D mask, bool or additive, or None.
    cache: the KV cache, or None.
    aligned: no padding and no packing: position is index in every row.
    plans: what the layers of this pass work out once and share.
    window_layers: the evicting layers of the cache, by their number.
    """

    backend: str
    queries: Tokens
    keys: Tokens
    past: int | Tensor
    length: int | None
    all_dense: bool
    user_mask: Tensor | None
    cache: Any
    aligned: bool
    plans: dict[Any, Any] = field(default_factory=dict)
    window_layers: dict[int, SinkWindowLayer] = field(init=False)

    def __post_init__(self) -> None:
        layers = enumerate(getattr(self.cache, "layers", ()))
        self.window_layers = {number: layer for number, layer in layers if isinstance(layer, SinkWindowLayer)}

    def is_plain(self, rule: Rule) -> bool:
        """Whether the rule is plain causal attention here: all queries dense, or nothing lies outside their view."""
        if rule.fa_decode and self.all_dense:
            return True
        return self.length is not None and self.length <= rule.window + rule.keep_first

    def holds_all(self, layer: int, count: int) -> bool:
        """Whether the `count` keys that the layer's cache returned are all there were."""
        return layer not in self.window_layers or count == self.length

    def sees_all(self, layer: int) -> bool:
        """Whether the single query sees every key that the layer's cache returned."""
        window_layer = self.window_layers.get(layer)
        return window_layer is not None and window_layer.exact

    def plan_name(self, kind: str, keys: Tokens, rule: Rule, *more: Any) -> Any:
        """Under which name layers with the same rule and the same keys share what they work out."""
        # A compiled graph would be tied to the length, and has no two layers of one rule with different keys.
        count = None if torch.compiler.is_compiling() else keys.position.shape[1]
        # Plain values only: before PyTorch 2.9 its compiler finds nothing by a rule or a device.
        return (kind, count, rule.window, rule.keep_first, rule.fa_decode, str(keys.position.device), *more)

    def keys_of(self, layer: int, count: int) -> Tokens:
        """The tokens of the `count` keys that the layer's cache returned."""
        window_layer = self.window_layers.get(layer)
        if window_layer is not None and window_layer.is_initialized:
            return Tokens(window_layer.seen_positions())
        return _extend(self.keys, count)


def _extend(keys: Tokens, count: int) -> Tokens:
    """A static cache's unused slots, as tokens later than any query."""
    missing = count - keys.position.shape[1]
    if missing == 0:
        return keys
    if missing < 0:
        return keys[:count]
    rows = keys.position.shape[0]
    later = torch.full((rows, missing), LATER, device=keys.position.device)
    return Tokens(torch.cat([keys.position, later], dim=1), keys.start)


def number_tokens(mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Positions (1 or batch, length) of real tokens; padding (mask 0) gets distinct negative ones."""
    index = torch.arange(length, device=device)[None]
    if mask is None:
        return index
    real = mask[:, :length].to(device=device, dtype=torch.long)
    return torch.where(real > 0, (real > 0).long().cumsum(dim=1) - 1, -1 - index)


def sequence_starts(position_ids: Tensor) -> Tensor:
    """Where each token's sequence starts in a packed row: (batch, length) indices, from position_ids."""
    index = torch.arange(position_ids.shape[1], device=position_ids.device)[None].expand_as(position_ids)
    is_first = torch.ones_like(position_ids, dtype=torch.bool)
    is_first[:, 1:] = position_ids.diff(dim=1) != 1
    return torch.where(is_first, index, 0).cummax(dim=1).values


def dense_from_index(dense_from: int | Tensor, past: int | Tensor, new: int, device: torch.device) -> Tensor:
    """Which of the new tokens stand at or after index `dense_from` of their (padded) row: (1 or batch, new)."""
    index = torch.arange(new, device=device)[None] + past
    if isinstance(dense_from, Tensor):
        dense_from = dense_from.to(device).reshape(-1, 1)
    return index >= dense_from


def dense_from_labels(generated: Tensor, queries: Tokens, tail: int) -> Tensor:
    """Generated tokens and, before each run of them, `tail` real tokens of the prompt: (batch, new)."""
    if tail == 0:
        return generated
    last = generated.shape[1] - 1
    index = torch.arange(last + 1, device=generated.device).expand_as(generated)
    following = torch.where(generated, index, last + 1).flip(1).cummin(dim=1).values.flip(1)
    position = queries.position.expand_as(generated)
    inside = following.clamp(max=last)
    dense = (following <= last) & (position >= 0) & (position.gather(1, inside) - position <= tail)
    if queries.start is not None:
        start = queries.start.expand_as(generated)
        dense &= start.gather(1, inside) == start
    return dense
