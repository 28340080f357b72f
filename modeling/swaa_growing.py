"""The KV cache of layers that keep every key: full layers, and windowed ones with FA decode."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

# Room for this many tokens more, or for one in so many if that is longer: a token costs a constant number of copies.
SLACK = 16
SHARE = 256

# A tensor of keys carries the memory that it begins. What is made of it (cropped, reordered, moved) doesn't.
_MEMORY = "swaa_memory"


class GrowingLayer(DynamicLayer):
    """A DynamicLayer that writes a token behind the last one, where stock ones copy all keys for each token.

    keys, values: (batch, kv_heads, tokens, head_dim), the beginning of memory that is longer by at most 16 tokens or
    1/256. What was written is never written over: keys of an earlier step, or of a copy of the cache, stay as they are.
    """

    is_sliding = False
    keys: Any  # a Tensor, or None before the first tokens
    values: Any

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes (batch, kv_heads, new, head_dim) and returns all keys and values so far."""
        # Autograd needs each step's keys as they were, and a graph can't ask where there is room.
        if not self.is_initialized or torch.is_grad_enabled() or torch.compiler.is_compiling():
            super().update(key_states, value_states, *args, **kwargs)
        else:
            self.keys, self.values = _join(self.keys, key_states), _join(self.values, value_states)
        return self.keys, self.values


def _join(old: Tensor, new: Tensor) -> Tensor:
    """Concatenates along the sequence, in the memory behind `old` if there is any."""
    # Taken away: a second copy of a layer that shares these keys must not write to the same place.
    memory = vars(old).pop(_MEMORY, None)
    if not _alike(old, new):
        return torch.cat([old, new], dim=-2)
    batch, heads, past, dim = old.shape
    total = past + new.shape[2]
    # What inference mode has made can't be written outside of it.
    writable = memory is not None and (torch.is_inference_mode_enabled() or not memory.is_inference())
    if memory is None or memory.shape[2] < total or not writable:
        memory = old.new_empty(batch, heads, total + max(SLACK, total // SHARE), dim)
        memory[:, :, :past] = old
    # Half the price of slices, and this runs in every layer for every token.
    strides = memory.stride()
    memory.as_strided(new.shape, strides, past * strides[2]).copy_(new)
    joined: Tensor = memory.as_strided((batch, heads, total, dim), strides)
    setattr(joined, _MEMORY, memory)
    return joined


def _alike(old: Tensor, new: Tensor) -> bool:
    """Whether `new` may be written behind `old`. What differs, or is no plain tensor, torch.cat joins or refuses."""
    if not (type(old) is type(new) is Tensor and old.dtype == new.dtype and old.device == new.device):
        return False
    before, more = old.shape, new.shape
    return len(before) == len(more) == 4 and (before[0], before[1], before[3]) == (more[0], more[1], more[3])
