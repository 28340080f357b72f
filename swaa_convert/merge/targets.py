"""What each tensor of an adapter changes: peft builds its layers into the empty model and says what it cannot use."""

import copy
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from swaa_convert.errors import SwaaError
from swaa_convert.merge.loaded import LoadedAdapter, one_line, starts_from_weights
from swaa_convert.merge.model import EMBEDDINGS, is_tied
from swaa_convert.merge.parts import COLUMNS, ROWS

_PREFIX = "base_model.model."
# As many of the keys that find no place are named.
_NAMED = 5


def find_targets(model: Any, adapters: Sequence[LoadedAdapter], source: str) -> tuple[tuple[str, ...], ...]:
    """The modules that change, outermost only; those of one unit are merged together.

    `model` is the empty model; peft leaves it as it would a merged one, tied or not. `adapters` learn which keys go
    where.
    """
    tied = is_tied(model)
    modules = {name for name, _ in model.named_modules() if name}
    for adapter in adapters:
        way_out = f"is {adapter.adapter.base or 'SOURCE'} really its base?"
        _refuse_tokens(adapter, model, source)
        with one_line(adapter.adapter, f"does not fit {source}", way_out):
            wrapped = _wrap(model, adapter)
            _assign(adapter, wrapped, modules)
            wrapped.merge_and_unload()
            _refuse_wrapped(adapter, model)
    outermost = _outermost({path for adapter in adapters for path in adapter.keys})
    for adapter in adapters:
        _gather(adapter, outermost)
    return _units(outermost, tied)


def _wrap(model: Any, adapter: LoadedAdapter) -> Any:
    """The model with peft's layers in it, after peft has looked at every key."""
    config = copy.deepcopy(adapter.config)
    if starts_from_weights(config):
        # Such weights are not here.
        config.init_lora_weights = True
    wrapped = PeftModel(model, config)
    shapes = {key: torch.empty_like(tensor, device="meta") for key, tensor in adapter.tensors.items()}
    result = set_peft_model_state_dict(wrapped, shapes)
    _refuse_rest(adapter, [_plain(key) for key in result.unexpected_keys], "holds", "has no place for that")
    missing = [_plain(key) for key in result.missing_keys if "lora_" in key]
    _refuse_rest(adapter, missing, "lacks", "needs that")
    return wrapped


def _refuse_rest(adapter: LoadedAdapter, keys: list[str], has: str, why: str) -> None:
    if keys:
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise SwaaError(
            f"{adapter.name} {has} {', '.join(keys[:_NAMED])}{more}, "
            f"and the model under its adapter_config.json {why}: "
            f"is {adapter.adapter.base or 'SOURCE'} really its base?"
        )


def _refuse_tokens(adapter: LoadedAdapter, model: Any, source: str) -> None:
    """peft finds tokens that the model doesn't have when it merges, or not at all."""
    named = adapter.config.trainable_token_indices or {}
    lists = named if isinstance(named, dict) else {EMBEDDINGS[0]: named}
    count = model.model.embed_tokens.num_embeddings
    for name, tokens in lists.items():
        if not any(path.endswith(name) for path in EMBEDDINGS):
            raise SwaaError(
                f"{adapter.name}: trainable_token_indices names {name}, which is no embedding of {source}: "
                f"is {adapter.adapter.base or 'SOURCE'} really its base?"
            )
        if beyond := [token for token in tokens if not 0 <= token < count]:
            raise SwaaError(
                f"{adapter.name}: trainable_token_indices holds {beyond[0]}, but {source} has {count} tokens: "
                f"is {adapter.adapter.base or 'SOURCE'} really its base?"
            )


def _refuse_wrapped(adapter: LoadedAdapter, merged: Any) -> None:
    """peft takes off one layer of its own; of tied embeddings, it can put on two."""
    path = next((name for name, module in merged.named_modules() if _is_layer(module)), None)
    if path is not None:
        raise SwaaError(
            f"{adapter.name}: peft cannot merge what changes {path} in two ways (a LoRA, modules_to_save, "
            "trainable_token_indices): train again with one of them"
        )


def _assign(adapter: LoadedAdapter, wrapped: Any, modules: set[str]) -> None:
    """Write down which module each key changes, and which modules get a LoRA."""
    inner = wrapped.base_model.model
    layers = {name: module for name, module in inner.named_modules() if _is_layer(module)}
    paths = set(_outermost(layers))
    adapter.targets.update(name for name in paths if isinstance(layers[name], LoraLayer))
    axes = {name: _axis(layers[name], adapter.config) for name in paths}
    adapter.axes.update({name: axis for name, axis in axes.items() if axis is not None})
    for key in adapter.tensors:
        path = _owner(key.removeprefix(_PREFIX), paths, modules)
        if path is None:
            raise SwaaError(f"{adapter.name} holds {key}, which belongs to no module of the model")
        adapter.keys.setdefault(path, []).append(key)
    for path in paths - adapter.keys.keys():
        adapter.keys[path] = []


def _axis(layer: Any, config: Any) -> int | None:
    """Whether rows or columns don't depend on each other: DoRA's norms are those of rows, or of embeddings' columns."""
    if isinstance(layer, AuxiliaryTrainingWrapper):
        return ROWS
    if type(layer) not in (Linear, Embedding) or starts_from_weights(config):
        return None
    if not layer.lora_variant:
        return ROWS
    if not config.use_dora:
        return None
    return ROWS if type(layer) is Linear else COLUMNS


def _is_layer(module: object) -> bool:
    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _owner(key: str, paths: set[str], modules: set[str]) -> str | None:
    """The module around a key: the outermost that peft has wrapped, or else the innermost of the model."""
    parts = key.split(".")
    around = [".".join(parts[:count]) for count in range(1, len(parts))]
    wrapped = [path for path in around if path in paths]
    inner = [path for path in reversed(around) if path in modules]
    return next(iter(wrapped + inner), None)


def _outermost(paths: Collection[str]) -> list[str]:
    """Those that lie in no other."""
    found: list[str] = []
    # Whatever begins with a path and a dot is sorted behind it, with nothing in between that isn't inside too.
    for path in sorted(paths, key=lambda path: path.split(".")):
        if not found or not f"{path}.".startswith(f"{found[-1]}."):
            found.append(path)
    return found


def _gather(adapter: LoadedAdapter, outermost: Iterable[str]) -> None:
    """Where another adapter replaces a module as a whole, what lies in it belongs to that module."""
    homes = {path: next(home for home in outermost if f"{path}.".startswith(f"{home}.")) for path in adapter.keys}
    for path, home in homes.items():
        if path != home:
            adapter.keys.setdefault(home, []).extend(adapter.keys.pop(path))
    targets = {homes[path] for path in adapter.targets}
    adapter.targets.clear()
    adapter.targets.update(targets)


def _units(paths: Iterable[str], tied: bool) -> tuple[tuple[str, ...], ...]:
    """Tied embeddings are one weight, so they are merged together."""
    embeddings = [path for path in paths if path in EMBEDDINGS]
    rest = [(path,) for path in paths if path not in EMBEDDINGS]
    if tied and embeddings:
        return (EMBEDDINGS, *rest)
    return (*((path,) for path in embeddings), *rest)


def _plain(key: str) -> str:
    """A key as the adapter's file has it."""
    return key.removeprefix(_PREFIX).replace(".default", "").replace("modules_to_save.", "")
