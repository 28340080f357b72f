"""The source's own stock model without data, and pieces of it in which a few modules have their real weights."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import transformers
from torch import nn

from swaa_convert.errors import SwaaError

EMBEDDINGS = ("model.embed_tokens", "lm_head")


def empty_model(config: Mapping[str, Any]) -> Any:
    """The stock model that a source's config.json describes, on the meta device, its embeddings tied if they are."""
    stock = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(stock)
    model.tie_weights()
    return model.eval()


def is_tied(model: Any) -> bool:
    """Whether input and output embeddings are one parameter."""
    return model.lm_head.weight is model.model.embed_tokens.weight


def piece(model: Any, paths: Iterable[str]) -> Any:
    """A model of the same class and names, with copies of these modules and of the embeddings and nothing else."""
    tree: dict[str, Any] = {}
    for path in sorted({*paths, *EMBEDDINGS}):
        branch = tree
        for part in path.split("."):
            branch = branch.setdefault(part, {})
    part_of = _pruned(model, tree)
    part_of.config = copy.deepcopy(model.config)
    if is_tied(model):
        part_of.lm_head.weight = part_of.model.embed_tokens.weight
    return part_of


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give parameters of `model` these tensors, by name; a parameter that is shared stays shared."""
    for name, tensor in tensors.items():
        old, new = model.get_parameter(name), nn.Parameter(tensor, requires_grad=False)
        if old.shape != new.shape:
            raise SwaaError(
                f"{name} has shape {list(new.shape)}, but config.json has {list(old.shape)}: fetch the source again"
            )
        for owner in model.modules():
            for attribute, parameter in owner._parameters.items():
                if parameter is old:
                    owner._parameters[attribute] = new


def _pruned(module: nn.Module, tree: Mapping[str, Any]) -> Any:
    if not tree:
        return copy.deepcopy(module)
    pruned = module.__class__.__new__(module.__class__)
    pruned.__dict__.update(module.__dict__)
    pruned._parameters = dict(module._parameters)
    # In the order of the whole model: names and ties are looked up by it.
    pruned._modules = {
        name: _pruned(child, tree[name])
        for name, child in module._modules.items()
        if name in tree and child is not None
    }
    return pruned
