"""The KV cache of windowed layers without FA decode: sinks and window stay, what lies between is released."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import GenerationMixin

from .swaa_mask import Rule

# The keyword that carries the KV cache: versions from 5.24 on name it anew.
_KEYWORDS = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = "cache" if "cache" in _KEYWORDS else "past_key_values"

# The position of an empty slot in a row that keeps fewer keys than the others. No query has it, so nothing sees it.
EMPTY = torch.iinfo(torch.int64).min // 2

# Older versions crop to a length, newer ones by a number of tokens: zero is everything or nothing.
ZERO_EMPTIES = "max_length" in inspect.signature(DynamicLayer.crop).parameters

# Older stock layers keep their length when they are reset, and hold zeros.
RESET_EMPTIES = "reset" in vars(DynamicLayer)


def cache_in(kwargs: dict[str, Any]) -> Any:
    """The KV cache among a call's keywords, under either name, or None."""
    cache = kwargs.get(CACHE)
    return kwargs.get("past_key_values") if cache is None else cache


class SinkWindowLayer(DynamicLayer):
    """Keys and values of the first `keep_first` real tokens of each row and of its last `window - 1`.

    keys, values: (batch, kv_heads, kept, head_dim), the sinks first. positions: (1 or batch, kept), which token
    of its sequence each kept key is, because padded rows keep different ones. `update` returns what was kept
    before the call plus the new tokens, and `seen` holds their positions.

    The base model calls `announce` with the positions of the new tokens before each forward pass.
    """

    is_sliding = False

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.total = 0  # tokens that went through the layer, padding included
        self.evicted = False
        self.record_past = False  # assisted decoding takes tokens back: keep everything until `crop`
        self.recorded = 0  # tokens since the last release, which `crop` may take back
        self.positions = torch.empty((1, 0), dtype=torch.long)
        self.seen: Tensor | None = None
        self.padded = False
        self._incoming: Tensor | None = None

    def announce(self, positions: Tensor, padded: bool) -> None:
        """positions: (1 or batch, new tokens) of the next `update`; padded: whether any token so far is padding."""
        self._incoming, self.padded = positions, padded

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states[:, :, :0]
        self.values = (key_states if value_states is None else value_states)[:, :, :0]
        self.positions = self.positions.to(self.device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends (batch, kv_heads, new, head_dim) and returns what the new queries may need."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys = torch.cat([self.keys, key_states], dim=-2)
        values = torch.cat([self.values, value_states], dim=-2)
        self.seen = _join(self.positions, self._new_positions(key_states))
        self.total += key_states.shape[-2]
        self.recorded += key_states.shape[-2]
        self.keys, self.values, self.positions = keys, values, self.seen
        if not self.record_past:
            self._release()
        return keys, values

    def crop(self, length: int) -> None:
        """Takes the newest tokens back: a positive length is what remains, zero or less is how many go."""
        absolute = length > 0 or (length == 0 and ZERO_EMPTIES)
        drop = max(self.total - length, 0) if absolute else -length
        if drop >= self.total > 0:
            self._empty()
            return
        if self.evicted and drop > self.recorded:
            raise ValueError(
                f"the cache of a windowed layer can't be cropped by {drop} tokens: what it would need was released; "
                "start from a fresh cache"
            )
        if drop and self.is_initialized:
            kept = self.keys.shape[-2] - min(drop, self.keys.shape[-2])
            self.keys, self.values = self.keys[:, :, :kept], self.values[:, :, :kept]
            self.positions = self.positions[:, :kept]
            self.total = max(self.total - drop, 0)
        self._release()

    def activate_past_recording(self) -> None:
        self.record_past = True

    def get_seq_length(self, *args: Any) -> int:
        """Tokens that went through, those released included."""
        return self.total

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """What a full layer would answer: stock masks are built for full layers only."""
        new = query_length if isinstance(query_length, int) else query_length.shape[0]
        return self.total + new, 0

    def reset(self) -> None:
        if not RESET_EMPTIES:
            raise NotImplementedError("this version of transformers can't reset a DynamicCache: make a new one")
        self._empty()

    def _empty(self) -> None:
        self.keys = self.values = None  # type: ignore[assignment]
        self.seen = self._incoming = None
        self.positions = self.positions[:1, :0]
        self.total = self.recorded = 0
        self.is_initialized = self.evicted = self.padded = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._on_rows(lambda t: t.index_select(0, beam_idx.to(t.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._on_rows(lambda t: t.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._on_rows(lambda t: t[indices.to(t.device) if isinstance(indices, Tensor) else indices])

    def _on_rows(self, change: Any) -> None:
        if not self.is_initialized:
            return
        self.keys, self.values = change(self.keys), change(self.values)
        if self.positions.shape[0] > 1:
            self.positions = change(self.positions)

    def _new_positions(self, key_states: Tensor) -> Tensor:
        new = key_states.shape[-2]
        positions, self._incoming = self._incoming, None
        if positions is None or positions.shape[-1] != new:
            raise RuntimeError("a windowed layer's cache was updated outside of its model's forward pass")
        return positions.to(key_states.device)

    def _release(self) -> None:
        """Drops the keys that no later query can see."""
        self.recorded = 0
        limit = self.rule.keep_first + self.rule.window - 1
        if not self.is_initialized or self.keys.shape[-2] <= limit:
            return
        self.evicted = True
        if self.padded:
            self._release_rows(limit)
        else:
            self._release_aligned()

    def _release_aligned(self) -> None:
        """Rows without padding keep the same tokens: two slices."""
        first, last = self.rule.keep_first, self.keys.shape[-2] - (self.rule.window - 1)

        def ends(states: Tensor, dim: int) -> Tensor:
            head, tail = states.narrow(dim, 0, first), states.narrow(dim, last, states.shape[dim] - last)
            return torch.cat([head, tail], dim=dim)

        self.keys, self.values = ends(self.keys, 2), ends(self.values, 2)
        self.positions = ends(self.positions, 1)

    def _release_rows(self, limit: int) -> None:
        """Padded rows keep different tokens: gather each row's, in order, and leave shorter rows empty slots."""
        position = self.positions
        newest = position.amax(dim=1, keepdim=True)
        keep = (position >= 0) & ((position < self.rule.keep_first) | (newest - position < self.rule.window - 1))
        order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :limit]
        self.positions = torch.where(keep, position, EMPTY).gather(1, order)
        batch, heads, _, dim = self.keys.shape
        index = order[:, None, :, None].expand(batch, heads, -1, dim).to(self.keys.device)
        self.keys, self.values = self.keys.gather(2, index), self.values.gather(2, index)


def _join(old: Tensor, new: Tensor) -> Tensor:
    """Concatenates positions along the sequence, giving both the larger batch."""
    rows = max(old.shape[0], new.shape[0])
    return torch.cat([old.to(new.device).expand(rows, -1), new.expand(rows, -1)], dim=1)


def release_windows(cache: Any, rules: Iterable[tuple[int, Rule]], depth: int) -> None:
    """Gives the named layers of an empty DynamicCache a SinkWindowLayer, in place.

    Any other cache, and one that holds tokens already, keeps everything: exact, without the memory saved. depth:
    layers that run.
    """
    if type(cache) is not DynamicCache or cache.get_seq_length() > 0:
        return
    # A draft that exits early fills fewer layers, and some versions can't crop those that stay empty.
    del cache.layers[depth:]
    for index, rule in rules:
        while len(cache.layers) <= index:
            cache.layers.append(DynamicLayer())
        if type(cache.layers[index]) is DynamicLayer:
            cache.layers[index] = SinkWindowLayer(rule)
