"""Bytes that tensors really hold, and memory between runs."""

import gc
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

# What a cache may refer to without holding it.
_FOREIGN = (nn.Module, type, str, bytes)
# What allocators say where there is no class of errors for it: those of a CPU, cuBLAS, and kernels that are launched.
_SAID = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind these tensors: each storage once and whole, so that a view counts as all that it keeps alive."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.device, storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def tensors_in(thing: Any, _seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that an object holds, in attributes and collections, however deep."""
    seen = set() if _seen is None else _seen
    if id(thing) in seen or isinstance(thing, _FOREIGN):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    for part in _parts(thing):
        yield from tensors_in(part, seen)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset):
        return list(thing)
    return list(vars(thing).values()) if hasattr(thing, "__dict__") else []


def out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: on a GPU it mostly has a class of its own, on a CPU a message."""
    if error is None:
        return False
    text = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in _SAID):
        return True
    # Compiled kernels wrap what their launch raised.
    return out_of_memory(error.__cause__)


def free(device: str) -> None:
    """Give back what ended runs held."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
