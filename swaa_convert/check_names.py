"""Whether tensors belong to a model's modules, by name alone: all that can be said of packed weights."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch


def fits_by_name(model: torch.nn.Module, names: Iterable[str], tied: Collection[str]) -> tuple[list[str], list[str]]:
    """(modules of `model` that have nothing on disk, names on disk that belong to no module)."""
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    found: set[str] = set()
    unexpected = []
    for name in names:
        owner = next((prefix for prefix in _prefixes(name) if prefix in owners), None)
        if owner is None:
            unexpected.append(name)
        else:
            found.add(owner)
    return sorted(owners - found - {name.rpartition(".")[0] for name in tied}), unexpected


def tied_names(model_class: Any, config: Any) -> Collection[str]:
    """The parameters that are another's when embeddings are tied: a list, or since transformers 5 a mapping."""
    if not getattr(config, "tie_word_embeddings", False):
        return ()
    return tuple(getattr(model_class, "_tied_weights_keys", None) or ())


def _prefixes(name: str) -> Iterator[str]:
    """The modules around a tensor, inside out: packed experts stand deeper on disk than in memory."""
    while name:
        name = name.rpartition(".")[0]
        yield name
