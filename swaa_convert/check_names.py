"""Whether tensors belong to a model's modules, by name alone: all that can be said of packed weights."""

from collections.abc import Iterable, Iterator

import torch


def fits_by_name(model: torch.nn.Module, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(parameters of `model` whose module has nothing on disk, names on disk that belong to no module)."""
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    found: set[str] = set()
    unexpected = []
    for name in names:
        owner = next((prefix for prefix in _prefixes(name) if prefix in owners), None)
        if owner is None:
            unexpected.append(name)
        else:
            found.add(owner)
    tied = {str(name).rpartition(".")[0] for name in _tied(model)}
    return sorted(owners - found - tied), unexpected


def _prefixes(name: str) -> Iterator[str]:
    """The modules around a tensor, inside out: packed experts stand deeper on disk than in memory."""
    while name:
        name = name.rpartition(".")[0]
        yield name


def _tied(model: torch.nn.Module) -> Iterable[str]:
    config = getattr(model, "config", None)
    return (getattr(model, "_tied_weights_keys", None) or ()) if getattr(config, "tie_word_embeddings", False) else ()
