"""The KV cache. In windowed layers without FA decode sinks and window stay, and what lies between is released."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation import GenerationMixin

from .swaa_growing import GrowingLayer
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
    """Keys and values of the first `keep_first` real tokens of each row and of its last `window - 1`, or one more.

    keys, values: (batch, kv_heads, kept, head_dim), the sinks first. `update` returns what was kept before the call
    plus the new tokens, and `seen` holds their positions; or, for a single token, exactly what its query sees: then
    `exact` is set. Decoding overwrites the oldest key in place, so that a token moves nothing but itself.

    The base model calls `announce` with the positions of the new tokens before each forward pass.
    """

    is_sliding = False

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.limit = rule.keep_first + rule.window  # keys that a query sees, its own included
        self.total = 0  # tokens that went through the layer, padding included
        self.oldest = 0  # slot of the window's oldest key, counted from the sinks' end; 0: keys are in order
        self.evicted = False
        self.record_past = False  # assisted decoding takes tokens back: keep everything until `crop`
        self.recorded = 0  # tokens since the last release, which `crop` may take back
        self.tracked = False  # whether autograd may follow the keys
        # Which token of its sequence each kept key is, (batch, kept); None while no row is padded: see `_positions`.
        self.ragged: Tensor | None = None
        self.scattered = False  # whether `ragged` is out of order
        self.seen: Tensor | None = None
        self.exact = False
        self._incoming: Tensor | None = None
        self._padded = False

    def announce(self, positions: Tensor, padded: bool) -> None:
        """positions: (1 or batch, new tokens) of the next `update`; padded: whether any token so far is padding."""
        self._incoming, self._padded = positions, padded

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor | None = None) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states[:, :, :0]
        self.values = (key_states if value_states is None else value_states)[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes (batch, kv_heads, new, head_dim) and returns what the new queries may need."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        incoming, self.exact = self._take_incoming(key_states), False
        if self._can_overwrite(key_states):
            self._overwrite(key_states, value_states, incoming)
            return self.keys, self.values
        self._straighten()
        if self._padded and self.ragged is None:
            self.ragged = self._positions().expand(key_states.shape[0], -1)
        if self.ragged is not None:
            self.seen = self.ragged = torch.cat([self.ragged, incoming.expand(key_states.shape[0], -1)], dim=1)
        else:
            self.seen = torch.cat([self._positions(), incoming[:1]], dim=1)
        keys = self.keys = _join(self.keys, key_states)
        values = self.values = _join(self.values, value_states)
        self.tracked = torch.is_grad_enabled()
        self.total += key_states.shape[-2]
        self.recorded += key_states.shape[-2]
        # A single token fills the place that the next one may overwrite.
        if not self.record_past and not (key_states.shape[-2] == 1 and keys.shape[-2] == self.limit):
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
        if self.is_initialized:
            self._straighten()
        if drop and self.is_initialized:
            kept = self.keys.shape[-2] - min(drop, self.keys.shape[-2])
            self.keys, self.values = self.keys[:, :, :kept], self.values[:, :, :kept]
            self.ragged = None if self.ragged is None else self.ragged[:, :kept]
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
        self.ragged = self.seen = self._incoming = None
        self.total = self.recorded = self.oldest = 0
        self.is_initialized = self.evicted = self.exact = self.scattered = self.tracked = self._padded = False

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
        self.ragged = None if self.ragged is None else change(self.ragged)

    def seen_positions(self) -> Tensor:
        """(1 or batch, keys): which tokens the last `update` returned."""
        if not self.exact:
            assert self.seen is not None
            return self.seen
        first = self.rule.keep_first
        positions = self._positions()
        return torch.cat([positions[:, :first], positions[:, first:].roll(self.oldest, dims=1)], dim=1)

    def _take_incoming(self, key_states: Tensor) -> Tensor:
        positions, self._incoming = self._incoming, None
        if positions is None or positions.shape[-1] != key_states.shape[-2]:
            raise RuntimeError("a windowed layer's cache was updated outside of its model's forward pass")
        return positions.to(key_states.device)

    def _positions(self) -> Tensor:
        """(1, kept): which tokens are kept, where no row is padded and the keys are in order."""
        kept = self.keys.shape[-2]
        index = torch.arange(kept, device=self.keys.device)
        return torch.where(index < self.rule.keep_first, index, index + self.total - kept)[None]

    def _can_overwrite(self, key_states: Tensor) -> bool:
        """Whether a single token may take the oldest key's place."""
        if key_states.shape[-2] != 1 or self.record_past or self.keys.shape[-2] != self.limit:
            return False
        # Autograd may need what a step read as it was.
        if torch.is_grad_enabled():
            return False
        # A graph can't ask: the question would break it in every layer.
        asks = not torch.compiler.is_compiling()
        return not asks or torch.is_inference_mode_enabled() or not self.keys.is_inference()

    def _overwrite(self, key_states: Tensor, value_states: Tensor, incoming: Tensor) -> None:
        self.evicted = True
        self.total += 1
        self.recorded = 0
        if self.tracked:
            # Autograd may hold what an earlier step read.
            self.keys, self.values, self.tracked = self.keys.clone(), self.values.clone(), False
        if self.ragged is None and not self._padded:
            slot = self.rule.keep_first + self.oldest
            self.keys[:, :, slot : slot + 1] = key_states
            self.values[:, :, slot : slot + 1] = value_states
            self.oldest = (self.oldest + 1) % self.rule.window
            self.exact = True
            return
        if self.ragged is None:
            self._straighten()
        batch, heads, _, dim = key_states.shape
        positions = self._positions() if self.ragged is None else self.ragged
        positions = positions.expand(batch, -1)
        # Rows hold different tokens: each gives up one that no query of its own after what it holds sees.
        following = positions.amax(dim=1, keepdim=True) + 1
        slots = (~self._visible(positions, following)).to(torch.uint8).argmax(dim=1, keepdim=True)
        self.seen = self.ragged = positions.scatter(1, slots, incoming.expand(batch, -1))
        self.scattered = True
        index = slots[:, None, :, None].expand(batch, heads, 1, dim).to(self.keys.device)
        self.keys.scatter_(2, index, key_states)
        self.values.scatter_(2, index[..., :1].expand(*value_states.shape), value_states)

    def _visible(self, positions: Tensor, query: Tensor) -> Tensor:
        """Which kept keys a query at `query` (batch, 1), or any later one, may still see."""
        in_window = query - positions < self.rule.window
        return (positions >= 0) & ((positions < self.rule.keep_first) | in_window)

    def _straighten(self) -> None:
        """Brings keys that decoding wrote in the places of others back into order."""
        if self.oldest:
            index = torch.arange(self.limit, device=self.keys.device)
            window = index[self.rule.keep_first :].roll(-self.oldest)
            index = torch.cat([index[: self.rule.keep_first], window])
            self.keys, self.values = self.keys.index_select(2, index), self.values.index_select(2, index)
            self.oldest = 0
        elif self.scattered and self.ragged is not None:
            self._take_rows(self.ragged.argsort(dim=1))

    def _release(self) -> None:
        """Drops the keys that no later query can see."""
        self.recorded = 0
        if not self.is_initialized or self.keys.shape[-2] < self.limit:
            return
        self.evicted = True
        if self.ragged is None:
            # Rows without padding keep the same tokens: two slices.
            self.keys, self.values = self._ends(self.keys), self._ends(self.values)
        else:
            self._release_rows(self.ragged)

    def _ends(self, states: Tensor) -> Tensor:
        window = states.shape[2] - (self.rule.window - 1)
        return torch.cat([states[:, :, : self.rule.keep_first], states[:, :, window:]], dim=2)

    def _release_rows(self, positions: Tensor) -> None:
        """Padded rows keep different tokens: gather each row's, in order, and leave shorter rows empty slots."""
        keep = self._visible(positions, positions.amax(dim=1, keepdim=True) + 1)
        self.ragged = torch.where(keep, positions, EMPTY)
        self._take_rows((~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.limit - 1])

    def _take_rows(self, order: Tensor) -> None:
        """Keeps the keys at `order` (batch, n), row by row."""
        assert self.ragged is not None
        self.ragged, self.scattered = self.ragged.gather(1, order), False
        index = order[:, None, :, None].expand(-1, self.keys.shape[1], -1, -1).to(self.keys.device)
        self.keys = self.keys.gather(2, index.expand(-1, -1, -1, self.keys.shape[3]))
        self.values = self.values.gather(2, index.expand(-1, -1, -1, self.values.shape[3]))


def _join(old: Tensor, new: Tensor) -> Tensor:
    """Concatenates along the sequence, and copies nothing where nothing was before."""
    return torch.cat([old, new], dim=2) if old.shape[2] else new


def give_layers(cache: Any, released: Iterable[tuple[int, Rule]], depth: int) -> None:
    """Gives an empty DynamicCache this model's layers, in place: a SinkWindowLayer for each rule, else a GrowingLayer.

    Any other cache, and one that holds tokens already, keeps everything: exact, without the memory saved. One that
    another model has filled and that was emptied since gets this model's layers, too. depth: layers that run; those
    past it are removed. In a graph layers that keep everything stay stock ones: there both do the same, and some
    versions export no others.
    """
    if type(cache) is not DynamicCache or cache.get_seq_length() > 0:
        return
    # A draft that exits early fills fewer layers, and some versions can't crop those that stay empty.
    del cache.layers[depth:]
    rules = dict(released)
    for index in range(depth):
        if index == len(cache.layers):
            cache.layers.append(DynamicLayer())
        cache.layers[index] = _layer(cache.layers[index], rules.get(index))


def _layer(layer: Any, rule: Rule | None) -> Any:
    """The layer itself, if it is right or of a kind that isn't ours to replace, or the right one."""
    keeping = DynamicLayer if torch.compiler.is_compiling() else GrowingLayer
    if type(layer) is (keeping if rule is None else SinkWindowLayer) and getattr(layer, "rule", None) == rule:
        return layer
    # By name, for another repo's layers are of that repo's own copy of these classes.
    if type(layer).__name__ not in {kind.__name__ for kind in (DynamicLayer, GrowingLayer, SinkWindowLayer)}:
        return layer
    return keeping() if rule is None else SinkWindowLayer(rule)


def capacity(cache: Any) -> int:
    """Slots of a static cache, 0 of any other or of none; the method's name differs between versions."""
    if not getattr(cache, "is_compileable", False):
        return 0
    get = cache.get_max_length if hasattr(cache, "get_max_length") else cache.get_max_cache_shape
    return max(int(get() or 0), 0)
