"""Tensors between files and memory: read into memory of their own, so that what is merged is never the source's."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from swaa_convert.errors import SwaaError
from swaa_convert.shards.layout import Slot
from swaa_convert.system_errors import naming

# What a LoRA can be merged into.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_tensor(path_of: Callable[[str], Path], slot: Slot) -> Tensor:
    """One tensor of the source."""
    data = torch.empty(slot.size, dtype=torch.uint8)
    path = path_of(slot.file)
    with naming(path), path.open("rb", buffering=0) as file:
        file.seek(slot.start)
        rest = data.numpy().data
        while rest:
            count = file.readinto(rest)
            if not count:
                raise SwaaError(f"{slot.file} ends within {slot.name}: fetch the source again")
            rest = rest[count:]
    return data.view(DTYPES[slot.dtype]).reshape(slot.shape)


def is_finite(tensor: Tensor) -> bool:
    """Whether floats hold neither NaN nor infinity; many times faster than looking at each with torch.isfinite."""
    if not tensor.numel():
        return True
    return all(torch.isfinite(extreme).item() for extreme in torch.aminmax(tensor))


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
