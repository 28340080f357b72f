"""The settings lists of the paper's reference code (JSON), read as recipes.

An entry holds the four fields of its SWAAConfig, by themselves or as `swaa_config` beside a `model_list`:

    {"sliding_window_size": 2000, "keep_first": 10, "force_fa_decode": true, "non_sliding_layers": [1, 3, 5]}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, nearest, one_line
from swaa_convert.recipe import Recipe, recipe_from
from swaa_convert.sizes import parse_layers
from swaa_convert.strict_json import parse_json

# The fields with the defaults that the reference code gives them.
_DEFAULTS: dict[str, Any] = {
    "sliding_window_size": None,
    "keep_first": 0,
    "force_fa_decode": False,
    "non_sliding_layers": [],
}
_MAX_BYTES = 1024 * 1024
# In its file for servers, the reference code writes switches as words.
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Entry:
    """One entry of a settings list.

    Parameters
    ----------
    number:
        Its place in the list, from 1.
    recipe:
        What it asks for.
    models:
        The models that the list runs it on, as it names them.
    """

    number: int
    recipe: Recipe
    models: tuple[str, ...]


def read_settings(path: Path, *, tuned: bool = False) -> list[Entry]:
    """Every entry of a settings file; `tuned`: its models were tuned under SWAA."""
    listed = _load(path)
    if isinstance(listed, Mapping):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise SwaaError(f"{path}: a settings file is a list of objects with {', '.join(_DEFAULTS)}")
    return [_entry(f"{path}: entry {number}", number, each, tuned) for number, each in enumerate(listed, 1)]


def entry_name(entry: Entry) -> str:
    """A file name that says what the recipe does: 12-window2000-sinks10-odd-fadecode.yaml."""
    recipe = entry.recipe
    parts = [f"{entry.number:02d}", "full" if recipe.window is None else f"window{recipe.window}"]
    if recipe.window is not None:
        parts += [f"sinks{recipe.keep_first}"] if recipe.keep_first else []
        parts += [_layers_word(recipe.full_layers)] if recipe.full_layers else []
        parts += ["fadecode"] if recipe.force_fa_decode else []
    return "-".join(parts) + ".yaml"


def entry_yaml(entry: Entry, where: str) -> str:
    """The entry as a recipe file, with where it came from and what to mind."""
    recipe = entry.recipe
    values: dict[str, Any] = {"window": recipe.window, "keep_first": recipe.keep_first}
    if recipe.full_layers:
        values["full_layers"] = list(recipe.full_layers)
    else:
        values["interleave"] = "none"
    if recipe.fa_decode_layers is not None:
        values["fa_decode_layers"] = list(recipe.fa_decode_layers)
    else:
        values["fa_decode"] = recipe.fa_decode
    if recipe.tuned:
        values["tuned"] = True
    lines = [f"Entry {entry.number} of {where}, settings of the SWAA paper's reference code."]
    lines += [f"Models: {', '.join(entry.models)}"] if entry.models else []
    if recipe.full_layers:
        lines.append(f"Layers up to {max(recipe.full_layers)}: --clip-layers drops those that a model doesn't have.")
    comment = "".join(f"# {one_line(line)}\n" for line in lines)
    # A value in JSON is one in YAML too, in one line.
    return comment + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror}: give a settings file of the reference code") from error
    if len(data) > _MAX_BYTES:
        raise SwaaError(f"{path}: larger than 1 MiB, so it is no settings file")
    try:
        return parse_json(data)
    except ValueError as error:
        raise SwaaError(f"{path}: not JSON ({error}): give a settings file of the reference code") from error


def _entry(where: str, number: int, value: Any, tuned: bool) -> Entry:
    fields, models = value, []
    if isinstance(value, Mapping) and "swaa_config" in value:
        _refuse_unknown(where, value, ("swaa_config", "model_list"))
        fields, models = value["swaa_config"], value.get("model_list", [])
    if not isinstance(fields, Mapping):
        raise SwaaError(f"{where} is no object with {', '.join(_DEFAULTS)}")
    if not isinstance(models, list) or not all(isinstance(model, str) for model in models):
        raise SwaaError(f"{where}: model_list must be a list of names, not {models!r}")
    _refuse_unknown(where, fields, _DEFAULTS)
    try:
        return Entry(number, _recipe({**_DEFAULTS, **fields}, tuned), tuple(models))
    except (SwaaError, ValueError) as error:
        raise SwaaError(f"{where}: {error}") from error


def _refuse_unknown(where: str, given: Mapping[str, Any], known: Any) -> None:
    for key in given:
        if key not in known:
            raise SwaaError(f"{where}: unknown field {key!r}: {nearest(key, known)}")


def _recipe(fields: Mapping[str, Any], tuned: bool) -> Recipe:
    layers = _layers("non_sliding_layers", fields["non_sliding_layers"])
    decode = fields["force_fa_decode"]
    decode = _WORDS.get(decode.lower(), decode) if isinstance(decode, str) else decode
    values = {"window": fields["sliding_window_size"], "keep_first": fields["keep_first"], "tuned": tuned}
    values |= {"full_layers": layers} if layers else {"interleave": "none"}
    if isinstance(decode, bool):
        return recipe_from({**values, "fa_decode": decode})
    if decode == []:
        return recipe_from({**values, "fa_decode": False})
    return recipe_from({**values, "fa_decode_layers": _layers("force_fa_decode", decode)})


def _layers(name: str, value: Any) -> list[int]:
    """A list, or 1,3,5 as the reference's server takes it."""
    value = list(parse_layers(value)) if isinstance(value, str) else value
    if not isinstance(value, list):
        raise SwaaError(f"{name} must be a list of layers such as [1, 3, 5], not {value!r}")
    return value


def _layers_word(layers: tuple[int, ...] | None) -> str:
    """odd, even, every4from1 where the layers are that, up to the last one; else full and how many."""
    listed = sorted(layers or ())
    steps = {after - before for before, after in zip(listed, listed[1:], strict=False)}
    if len(steps) == 1 and listed[0] < (step := steps.pop()):
        return {(2, 1): "odd", (2, 0): "even"}.get((step, listed[0]), f"every{step}from{listed[0]}")
    return f"full{len(listed)}"
