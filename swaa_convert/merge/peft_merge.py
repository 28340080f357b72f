"""Merging a few modules: peft's own layers around their real weights, exactly as in a whole model."""

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from torch import Tensor

from swaa_convert.errors import SwaaError
from swaa_convert.merge.experts import Stack
from swaa_convert.merge.fused import fused, unfused
from swaa_convert.merge.loaded import LoadedAdapter, one_line, starts_from_weights
from swaa_convert.merge.model import EMBEDDINGS, fill, piece
from swaa_convert.merge.parts import Parts

Unit = tuple[str, ...]
# The tensors stored for a module, by name.
Read = Callable[[str], dict[str, Tensor]]


def merge_units(model: Any, units: Sequence[Unit], adapters: Iterable[LoadedAdapter], read: Read) -> dict[str, Tensor]:
    """The tensors of the merged modules, named and shaped as they are stored.

    Parameters
    ----------
    model:
        The empty model.
    units:
        The paths of the modules to merge.
    read:
        Gives the tensors stored for a module.
    """
    paths = {path for unit in units for path in unit}
    adapters = [adapter for adapter in adapters if paths & adapter.keys.keys()]
    built = piece(model, paths | _stand_ins(paths, adapters))
    converted = {path for path in paths if _fill(model, built, path, read(path))}
    for adapter in adapters:
        with one_line(adapter.adapter, "cannot be merged", "load it onto the result of a conversion without --lora"):
            built = _merged(built, adapter, paths)
    state = {path: _state(built, path) for path in paths}
    _let_go(built)
    as_stored = unfused(model, _joined(state[path] for path in paths & converted)) if paths & converted else {}
    return as_stored | _joined(state[path] for path in paths - converted)


def merge_experts(
    model: Any, stack: Stack, chosen: Sequence[int], adapters: Iterable[LoadedAdapter], read: Read
) -> dict[str, Tensor]:
    """The tensors of a few experts of a stack, merged, named and shaped as they are stored.

    Parameters
    ----------
    chosen:
        The numbers of the experts, at least two.
    read:
        Gives the tensors stored for a module `path.number`.
    """
    touching = [stack.adapter(adapter, chosen) for adapter in adapters if stack.path in adapter.keys]
    few = stack.model(model, chosen)
    numbers = {expert: number for number, expert in enumerate(chosen)}

    def read_chosen(_: str) -> dict[str, Tensor]:
        return stack.renumbered(_joined(read(f"{stack.path}.{expert}") for expert in chosen), numbers)

    merged = merge_units(few, [(stack.path,)], touching, read_chosen)
    return stack.renumbered(merged, dict(enumerate(chosen)))


def merge_parts(
    model: Any, parts: Parts, most: int, wanted: Iterable[str], adapters: Iterable[LoadedAdapter], read: Read
) -> dict[str, Tensor]:
    """The wanted tensors of modules merged about `most` rows or columns at a time, where possible in what was read.

    Parameters
    ----------
    wanted:
        Names of the tensors.
    read:
        Gives the tensors stored for a module.
    """
    touching = [adapter for adapter in adapters if set(parts.unit) & adapter.keys.keys()]
    stored = {path: read(path) for path in parts.unit}
    known = _joined(stored.values())
    # Embeddings that were tied and no longer are have but one stored, of which the other is a copy.
    result = {name: known[name] if name in known else next(iter(known.values())).clone() for name in wanted}
    for some in parts.blocks(most):
        shares = [share for adapter in touching if (share := parts.adapter(adapter.mapped_anew(), some))]
        if shares:
            merged = _merge_part(model, parts, some, shares, stored)
            for name, whole in result.items():
                parts.of(whole, some).copy_(merged[name])
    return result


def _merge_part(
    model: Any,
    parts: Parts,
    some: slice,
    shares: Sequence[LoadedAdapter],
    stored: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    few = parts.model(model, _stand_ins(set(parts.unit), shares), some.stop - some.start)
    # Copies: the merged part of one module may lie where that of another is about to be written.
    pieces = {path: {name: parts.of(whole, some).clone() for name, whole in stored[path].items()} for path in stored}
    return merge_units(few, [parts.unit], shares, pieces.__getitem__)


def _stand_ins(paths: set[str], adapters: Iterable[LoadedAdapter]) -> set[str]:
    """peft wants something to put a LoRA on: where these modules are only replaced, an empty one comes along."""
    return {min(adapter.targets) for adapter in adapters if adapter.targets and not adapter.targets & paths}


@torch.no_grad()
def _merged(built: Any, adapter: LoadedAdapter, filled: set[str]) -> Any:
    """What PeftModel.from_pretrained(…).merge_and_unload() does, for the modules that `built` has."""
    config = copy.deepcopy(adapter.config)
    present = {name for name, _ in built.named_modules()}
    if not adapter.targets & filled:
        # No start can be computed from stand-ins, and none is wanted.
        config.init_lora_weights = True
    elif starts_from_weights(config):
        config.exclude_modules = _with_excluded(config.exclude_modules, adapter.targets & present - filled)
    wrapped = PeftModel(built, config)
    set_peft_model_state_dict(wrapped, _tensors_for(adapter, present))
    return wrapped.merge_and_unload()


def _with_excluded(names: str | list[str] | set[str] | None, more: Iterable[str]) -> str | list[str]:
    """peft's exclude_modules, a regular expression or names, with more names."""
    if isinstance(names, str):
        return "|".join([f"(?:{names})", *map(re.escape, more)])
    return [*(names or ()), *more]


def _tensors_for(adapter: LoadedAdapter, paths: set[str]) -> dict[str, Tensor]:
    return {key: adapter.tensors[key] for path, keys in adapter.keys.items() if path in paths for key in keys}


def _fill(model: Any, built: Any, path: str, stored: dict[str, Tensor]) -> bool:
    """Give a module its weights; say whether they had to be converted, being stored otherwise than in memory."""
    wanted = [f"{path}.{name}" for name, _ in built.get_submodule(path).named_parameters()]
    # Of tied embeddings, only one is stored.
    missing = [name for name in wanted if name not in stored and path not in EMBEDDINGS]
    if missing:
        stored = {f"{path}.{name}": tensor for name, tensor in fused(model, path, stored).items()}
    if lacking := [name for name in missing if name not in stored]:
        raise SwaaError(f"the source lacks {lacking[0]}: fetch it again")
    fill(built, {name: stored[name] for name in wanted if name in stored})
    return bool(missing)


def _state(built: Any, path: str) -> dict[str, Tensor]:
    return {f"{path}.{name}": tensor.detach() for name, tensor in built.get_submodule(path).state_dict().items()}


def _let_go(built: Any) -> None:
    """peft's models are cycles, which would keep their weights until Python happens to look for such."""
    for module in built.modules():
        module._parameters.clear()


def _joined(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor for part in parts for name, tensor in part.items()}
