"""The KV cache of layers that keep every key: full layers, and windowed ones with FA decode."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

# Room for this many tokens more, or for one in so many if that is longer: a token costs a constant number of copies.
SLACK = 32
SHARE = 256


class GrowingLayer(DynamicLayer):
    """A DynamicLayer that writes a token behind the last one, where stock ones copy all keys for each token.

    keys, values: (batch, kv_heads, tokens, head_dim), the beginning of memory that is longer by at most 32 tokens or
    1/256, and so not contiguous. Writing tokens changes nothing that was written before: keys of an earlier step, or of
    a copy of the cache, stay as they are. Pickled it is a stock layer, which needs no code of ours to be loaded.
    """

    is_sliding = False
    keys: Any  # a Tensor, or None before the first tokens
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self._room: Room | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes (batch, kv_heads, new, head_dim) and returns all keys and values so far."""
        room, self._room = self._room, None
        # Autograd needs each step's keys as they were, and a graph can't ask where there is room.
        if self.is_initialized and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            if room is None or not room.is_behind(self.keys, self.values) or not room.takes(key_states, value_states):
                room = make_room((self.keys, self.values), (key_states, value_states))
            else:
                room.append(key_states, value_states)
            if room is not None:
                self._room, self.keys, self.values = room, room.keys, room.values
                return room.keys, room.values
        super().update(key_states, value_states, *args, **kwargs)
        return self.keys, self.values

    def __copy__(self) -> Any:
        """Shares the keys, not the room: each of the two makes its own."""
        copied: Any = type(self)()
        vars(copied).update(vars(self), _room=None)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied: Any = type(self)()
        memo[id(self)] = copied
        vars(copied).update({name: copy.deepcopy(it, memo) for name, it in vars(self).items() if name != "_room"})
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: it for name, it in vars(self).items() if name != "_room"}
        state |= {name: it.contiguous() for name, it in state.items() if isinstance(it, Tensor)}
        return DynamicLayer, (), state

    # What these leave is other memory than before, which must not be held for its room.

    def reset(self) -> None:
        self._room = None
        super().reset()

    def offload(self) -> None:
        self._room = None
        super().offload()

    def crop(self, *args: Any, **kwargs: Any) -> None:
        self._room = None
        super().crop(*args, **kwargs)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._room = None
        super().reorder_cache(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._room = None
        super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        self._room = None
        super().batch_select_indices(indices)


class Room:
    """The memory that a layer's keys and values begin, with places for tokens to come, one each.

    keys, values: what was handed out last. Written to be quick: this runs in every layer for every token.
    """

    def __init__(self, memories: tuple[Tensor, Tensor], filled: int) -> None:
        self.memories, self.filled = memories, filled
        self.strides = [memory.stride() for memory in memories]
        self.token = [memory[:, :, :1].shape for memory in memories]
        # What inference mode has made can't be written outside of it.
        self.inference = memories[0].is_inference()
        self.places: list[tuple[Tensor, Tensor]] = []
        self._hand_out()

    def is_behind(self, keys: Any, values: Any) -> bool:
        """Whether these are what was handed out last, which somebody may have changed since."""
        key_memory, value_memory = self.memories
        same = keys is self.keys and values is self.values
        unmoved = keys.data_ptr() == key_memory.data_ptr() and values.data_ptr() == value_memory.data_ptr()
        return same and unmoved and keys.shape[2] == values.shape[2] == self.filled

    def takes(self, key: Tensor, value: Tensor) -> bool:
        """Whether there is a place for this one token, and it is of the same kind."""
        keys, values = self.memories
        return (
            key.shape == self.token[0]
            and value.shape == self.token[1]
            and _same_kind(keys, key)
            and _same_kind(values, value)
            and (torch.is_inference_mode_enabled() or not self.inference)
            and bool(self.places or self._cut_places())
        )

    def append(self, key: Tensor, value: Tensor) -> None:
        """Writes a token that `takes` has agreed to."""
        key_place, value_place = self.places.pop()
        key_place.copy_(key)
        value_place.copy_(value)
        self.filled += 1
        self._hand_out()

    def _hand_out(self) -> None:
        # Half the price of slices. And `data`, so that autograd doesn't take a token behind them for a change to them.
        (batch, heads, _, dim), (_, _, _, value_dim) = self.token
        self.keys = self.memories[0].as_strided((batch, heads, self.filled, dim), self.strides[0]).data
        self.values = self.memories[1].as_strided((batch, heads, self.filled, value_dim), self.strides[1]).data

    def _cut_places(self) -> bool:
        """The next places, the first one last: many views at once are cheaper."""
        count = min(SLACK, self.memories[0].shape[2] - self.filled)
        if count:
            ahead = slice(self.filled, self.filled + count)
            keys, values = (memory[:, :, ahead].chunk(count, dim=2) for memory in self.memories)
            self.places = list(zip(keys, values, strict=True))[::-1]
        return count > 0


def make_room(old: tuple[Any, Any], new: tuple[Tensor, Tensor]) -> Room | None:
    """Copies keys and values, the new ones behind the old ones, to where there is room for more.

    None if they are of different kinds or lengths, or no plain tensors (shards, say): torch.cat joins or refuses them.
    """
    if old[0].shape[2:3] != old[1].shape[2:3] or new[0].shape[2:3] != new[1].shape[2:3]:
        return None
    memories = []
    for before, more in zip(old, new, strict=True):
        if not (_same_kind(before, more) and before.ndim == more.ndim == 4):
            return None
        if before.shape[:2] != more.shape[:2] or before.shape[3] != more.shape[3]:
            return None
        past, total = before.shape[2], before.shape[2] + more.shape[2]
        memory = before.new_empty(*before.shape[:2], total + max(SLACK, total // SHARE), before.shape[3])
        memory[:, :, :past] = before
        memory[:, :, past:total] = more
        memories.append(memory)
    return Room((memories[0], memories[1]), total)


def _same_kind(one: Tensor, other: Tensor) -> bool:
    return type(one) is type(other) is Tensor and one.dtype == other.dtype and one.device == other.device
