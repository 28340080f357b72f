"""Which layers keep full attention in a model of known depth."""

from dataclasses import replace
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.interleave import stride
from swaa_convert.recipe import Recipe


def full_layers(recipe: Recipe, depth: int) -> tuple[int, ...]:
    """The layers that keep full attention, ascending; a list that runs past the depth is refused."""
    if recipe.interleave is not None:
        return _interleaved(recipe.interleave, depth)
    return _within("full_layers", recipe.full_layers or (), depth)


def fa_decode_layers(recipe: Recipe, depth: int) -> bool | list[int]:
    """FA decode as config.json writes it: a bool, or the list of layers that have it."""
    if recipe.fa_decode_layers is None:
        return recipe.fa_decode
    return list(_within("fa_decode_layers", recipe.fa_decode_layers, depth))


def clipped(recipe: Recipe, depth: int) -> tuple[Recipe, tuple[int, ...]]:
    """The recipe without layers past the depth (published lists have them), and what was dropped.

    Refused where nothing would be left of a list.
    """
    dropped: set[int] = set()
    kept: dict[str, Any] = {}
    for key in ("full_layers", "fa_decode_layers"):
        listed = getattr(recipe, key)
        if not listed:
            continue
        kept[key] = tuple(layer for layer in sorted(listed) if layer < depth)
        if not kept[key]:
            raise SwaaError(f"{key}: all of its layers lie past the model's, which are 0 to {depth - 1}")
        dropped |= set(listed) - set(kept[key])
    return replace(recipe, **kept) if dropped else recipe, tuple(sorted(dropped))


def _within(key: str, layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """`layers`, ascending, none of them past the depth."""
    beyond = [layer for layer in sorted(layers) if layer >= depth]
    if beyond:
        raise SwaaError(
            f"{key} names layer {beyond[0]}, but the model has layers 0 to {depth - 1}"
            " (--clip-layers drops what runs past the depth)"
        )
    return tuple(sorted(layers))


def _interleaved(word: str, depth: int) -> tuple[int, ...]:
    if word == "auto":
        raise SwaaError("interleave: auto must be resolved for a source before its layers can be counted")
    found = stride(word)
    if found is None:
        return ()
    step, first = found
    if first >= depth:
        raise SwaaError(f"interleave {word} starts at layer {first}, but the model has layers 0 to {depth - 1}")
    return tuple(range(first, depth, step))
