"""The recipe that an adapter carries: the rule that it was trained under."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from swaa_convert import __version__
from swaa_convert.config_json import SWAA_CONFIG_VERSION, swaa_config
from swaa_convert.errors import SwaaError, nearest
from swaa_convert.layers import clipped, full_layers
from swaa_convert.merge.adapter import CONFIG, Adapter
from swaa_convert.recipe import Recipe, recipe_from
from swaa_convert.recipe_file import RECIPE_FILE, parse_recipe

if TYPE_CHECKING:
    from swaa_convert.plan import Plan

# Where a `swaa_config` may stand beside an adapter; the first may be the object itself.
_JSON = ("swaa_config.json", CONFIG, "config.json")
_KEYS = ("sliding_window_size", "keep_first", "force_fa_decode", "non_sliding_layers", "fa_tail", "version")

# Where the text "false", say, would be taken for true.
_KINDS: dict[str, tuple[Any, str]] = {
    "force_fa_decode": (bool | list | None, "true, false or a list of layers"),
    "non_sliding_layers": (list | None, "a list of layers"),
}


def carried_recipe(adapters: Sequence[Adapter]) -> tuple[dict[str, Any], str] | None:
    """(recipe keys, where they stand) of the last adapter that carries a recipe: its training saw the weights last."""
    for adapter in reversed(adapters):
        if RECIPE_FILE in adapter.source.files:
            where = f"{adapter.name}'s {RECIPE_FILE}"
            return {**parse_recipe(adapter.source.read(RECIPE_FILE), where)[0], "tuned": True}, where
        for name in _JSON:
            values = _swaa_config(adapter, name)
            if values is not None:
                where = f"{adapter.name}'s {name}"
                return _recipe_keys(values, where), where
    return None


def departures(plan: "Plan") -> list[str]:
    """In words, where the rule of a conversion differs from those that its adapters carry."""
    return [said for adapter in plan.adapters for said in _departures(plan, carried_recipe([adapter]))]


def _departures(plan: "Plan", found: tuple[dict[str, Any], str] | None) -> list[str]:
    if found is None:
        return []
    keys, where = found
    try:
        theirs = _rule(recipe_from(keys), plan)
    except SwaaError as error:
        return [f"{where} is not for this model: {error.message}"]
    return [
        f"{key} is {json.dumps(plan.swaa[key])}, but {where} says {json.dumps(value)}: "
        "weights do best under the rule that they were tuned under"
        for key, value in theirs.items()
        if plan.swaa[key] != value
    ]


def _rule(theirs: Recipe, plan: "Plan") -> dict[str, Any]:
    """Their recipe as the `swaa_config` of this model; one that leaves the layers open is met by any."""
    theirs, _ = clipped(theirs, plan.depth)
    full = plan.full if theirs.interleave == "auto" else full_layers(theirs, plan.depth)
    return swaa_config(theirs, full, plan.depth)


def _swaa_config(adapter: Adapter, name: str) -> dict[str, Any] | None:
    if name not in adapter.source.files:
        return None
    content = adapter.source.read_json(name)
    values = content.get("swaa_config", content if name == _JSON[0] else None)
    if values is not None and not isinstance(values, dict):
        raise SwaaError(f"{adapter.name}: swaa_config in {name} must be an object, not {values!r}")
    return values


def _recipe_keys(values: dict[str, Any], where: str) -> dict[str, Any]:
    """A `swaa_config` object in a recipe's words."""
    version = values.get("version", SWAA_CONFIG_VERSION)
    if type(version) is not int or version != SWAA_CONFIG_VERSION:
        raise SwaaError(
            f"{where}: swaa_config has version {version!r}, but swaa-convert {__version__} reads "
            f"{SWAA_CONFIG_VERSION}: install a newer swaa-convert"
        )
    for key in values:
        if key not in _KEYS:
            raise SwaaError(f"{where}: unknown key {key!r} in swaa_config: {nearest(str(key), _KEYS)}")
    for key, (kinds, expected) in _KINDS.items():
        if not isinstance(values.get(key), kinds):
            raise SwaaError(f"{where}: {key} in swaa_config must be {expected}, not {values[key]!r}: mend it in a copy")
    decode, layers = values.get("force_fa_decode"), values.get("non_sliding_layers") or []
    keys = {
        "window": values.get("sliding_window_size"),
        "keep_first": values.get("keep_first", 0),
        **({"full_layers": layers} if layers else {"interleave": "none"}),
        **({"fa_decode_layers": decode} if isinstance(decode, list) and decode else {"fa_decode": bool(decode)}),
        "fa_tail": values.get("fa_tail", 0),
        "tuned": True,
    }
    try:
        recipe_from(keys)
    except SwaaError as error:
        raise SwaaError(f"{where}: {error.message}") from error
    return keys
