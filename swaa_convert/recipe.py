"""The recipe: what is asked of a conversion, before the source's depth is known.

The names follow the paper (arXiv 2512.10411): a window, the first tokens that stay visible (sinks),
the layers that keep full attention, and full-attention decode.
"""

from dataclasses import dataclass, fields
from typing import Any

from swaa_convert.errors import SwaaError, nearest
from swaa_convert.interleave import check_interleave
from swaa_convert.sizes import parse_layers, parse_size

SIZES = ("window", "keep_first", "fa_tail")
SWITCHES = ("fa_decode", "cot", "tuned")
LAYER_LISTS = ("full_layers", "fa_decode_layers")


@dataclass(frozen=True)
class Recipe:
    """One conversion's recipe.

    Parameters
    ----------
    window:
        Keys that a windowed query sees, itself included. None: no layer is windowed.
    keep_first:
        The first tokens that every query sees (attention sinks).
    interleave:
        Which layers keep full attention: odd, even, every:N, every:N+K, none or auto. None means odd, unless
        `full_layers` lists them.
    full_layers:
        The layers that keep full attention, counted from 0; instead of `interleave`.
    fa_decode:
        Generated tokens attend to everything, in every layer.
    fa_decode_layers:
        FA decode in these layers only.
    fa_tail:
        This many last prompt tokens attend to everything too.
    cot:
        The chat template asks for reasoning before the answer.
    tuned:
        The recipe is meant for weights that were tuned under SWAA (a merged LoRA).
    """

    window: int | None = 2048
    keep_first: int = 100
    interleave: str | None = None
    full_layers: tuple[int, ...] | None = None
    fa_decode: bool = True
    fa_decode_layers: tuple[int, ...] | None = None
    fa_tail: int = 0
    cot: bool = False
    tuned: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        if self.interleave is None and self.full_layers is None:
            object.__setattr__(self, "interleave", "odd")
        _check_layers(self)
        _check_numbers(self)

    @property
    def force_fa_decode(self) -> bool | list[int]:
        """FA decode as config.json writes it: for every layer, for none, or for those listed."""
        return self.fa_decode if self.fa_decode_layers is None else list(self.fa_decode_layers)


KEYS = tuple(field.name for field in fields(Recipe))
# Giving one of a pair takes the other's place when a flag overrides a recipe file.
RIVALS = {
    "interleave": "full_layers",
    "full_layers": "interleave",
    "fa_decode": "fa_decode_layers",
    "fa_decode_layers": "fa_decode",
}


def recipe_from(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values such as YAML gives; unknown keys are refused."""
    for key in values:
        if key not in KEYS:
            raise SwaaError(f"unknown recipe key {key!r}: {nearest(str(key), KEYS)}")
    return Recipe(**{key: _plain(key, value) for key, value in values.items()})


def override(base: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """`base` with `flags` on top; a flag also displaces the key that excludes it."""
    displaced = {RIVALS[key] for key in flags if key in RIVALS} - set(flags)
    return {key: value for key, value in base.items() if key not in displaced} | flags


def _plain(key: str, value: Any) -> Any:
    """YAML's spellings: a list for layers, 2k for a size, 1,5,9 for layers."""
    try:
        if isinstance(value, str) and key in SIZES:
            return parse_size(value)
        if isinstance(value, str) and key in LAYER_LISTS:
            return parse_layers(value)
    except ValueError as error:
        raise SwaaError(f"{key}: {error}") from error
    return tuple(value) if isinstance(value, list) else value


def _check_types(recipe: Recipe) -> None:
    for key in SIZES:
        value = getattr(recipe, key)
        if not (_is_int(value) or (key == "window" and value is None)):
            raise SwaaError(f"{key} must be a whole number, not {value!r}")
    for key in SWITCHES:
        if not isinstance(getattr(recipe, key), bool):
            raise SwaaError(f"{key} must be true or false, not {getattr(recipe, key)!r}")
    for key in LAYER_LISTS:
        _check_layer_list(key, getattr(recipe, key))


def _check_layer_list(key: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or not all(_is_int(item) for item in value):
        raise SwaaError(f"{key} must be a list of layer numbers such as [1, 3, 5], not {value!r}")
    if any(item < 0 for item in value):
        raise SwaaError(f"{key}: layers are counted from 0, so {min(value)} is none of them")
    if len(set(value)) != len(value):
        raise SwaaError(f"{key} names layer {next(i for i in value if value.count(i) > 1)} twice")


def _check_layers(recipe: Recipe) -> None:
    if recipe.interleave is not None and recipe.full_layers is not None:
        raise SwaaError("interleave and full_layers exclude each other: give one of them")
    if recipe.interleave is not None:
        check_interleave(recipe.interleave)
    if recipe.fa_decode_layers is not None and not recipe.fa_decode:
        raise SwaaError("fa_decode: false and fa_decode_layers exclude each other: drop one of them")


def _check_numbers(recipe: Recipe) -> None:
    if recipe.window is not None and recipe.window < 1:
        raise SwaaError(f"window must be 1 or more, not {recipe.window} (null: no layer is windowed)")
    if recipe.keep_first < 0:
        raise SwaaError(f"keep_first must be 0 or more, not {recipe.keep_first}")
    if recipe.fa_tail < 0:
        raise SwaaError(f"fa_tail must be 0 or more, not {recipe.fa_tail}")
    if recipe.fa_tail and not recipe.force_fa_decode:
        raise SwaaError("fa_tail needs FA decode: drop fa_tail, or set fa_decode: true")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
