"""The recipes that are compared with full attention: what `--recipes` says, and what that means for a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from swaa_convert.bench.subject import Subject, named
from swaa_convert.config_json import swaa_config
from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.layers import clipped, full_layers
from swaa_convert.parity import best_parity
from swaa_convert.presets import DEFAULT, read_recipe
from swaa_convert.recipe import LAYER_LISTS, RIVALS, Recipe, override, recipe_from
from swaa_convert.safe_yaml import load_yaml

FULL = "full attention"
OWN = "own"
# Commas within brackets belong to a list of layers, and the + of every:4+1 to its word.
_ENTRIES = re.compile(r",(?![^\[]*\])")
_SETTINGS = re.compile(r"\+(?=\s*\w+\s*=)")
_LABEL = re.compile(r"(?P<name>[^=:]+):(?P<rest>.+)", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """A recipe under the name that the tables show; without a recipe it is SOURCE's own `swaa_config`."""

    name: str
    recipe: Recipe | None


@dataclass(frozen=True)
class Variant:
    """A recipe settled for one model: its `swaa_config`, and what a user should know of how it came about."""

    name: str
    swaa: Mapping[str, Any]
    note: str | None = None


def parse_recipes(text: str) -> tuple[Asked, ...]:
    """What `--recipes` lists: presets, YAML files, `own`, RECIPE+KEY=VALUE or KEY=VALUE, each perhaps as NAME:RECIPE.

    Without a recipe to start from, keys that are not set are the default preset's, as for `convert`.
    """
    found = tuple(_entry(part.strip()) for part in _ENTRIES.split(text))
    names = [FULL, *(asked.name for asked in found)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SwaaUsageError(f"--recipes: {twice!r} stands twice: name one of them, as in NAME:{twice}")
    return found


def settle_variants(asked: tuple[Asked, ...] | None, subject: Subject) -> list[Variant]:
    """The variants for a model; by default the one that it was converted to, or the default preset."""
    if asked is None:
        own = Asked(subject.name, None)
        asked = (own,) if subject.swaa is not None else parse_recipes(DEFAULT)
    return [_settled(one, subject) for one in asked]


def describe(swaa: Mapping[str, Any] | None, depth: int) -> str:
    """A `swaa_config` in a few words."""
    window = swaa and swaa.get("sliding_window_size")
    if swaa is None or window is None:
        return "every layer full"
    full, decode = swaa.get("non_sliding_layers", ()), swaa.get("force_fa_decode", False)
    parts = [f"window {window:,}", f"sinks {swaa.get('keep_first', 0):,}", f"{len(full)} of {depth} layers full"]
    parts.append("FA decode" if decode is True else f"FA decode in {len(decode)}" if decode else "no FA decode")
    tail = swaa.get("fa_tail", 0)
    return ", ".join([*parts, f"tail {tail:,}"] if tail else parts)


def _entry(text: str) -> Asked:
    label = _LABEL.fullmatch(text)
    name, recipe = (label["name"].strip(), label["rest"].strip()) if label else (text, text)
    if not text:
        raise SwaaUsageError("--recipes: a recipe is empty: take out the comma, or name a preset")
    if not name or not recipe:
        raise SwaaUsageError("--recipes: a name is empty: write it as in quality,window=2048+interleave=odd")
    try:
        return Asked(name, None if recipe == OWN else recipe_from(_values(recipe)))
    except SwaaError as error:
        raise SwaaUsageError(f"--recipes {text}: {error.message}") from error


def _values(text: str) -> dict[str, Any]:
    base, *settings = (piece.strip() for piece in _SETTINGS.split(text))
    if base == OWN:
        raise SwaaError(f"{OWN} takes no +KEY=VALUE: start from a preset or a YAML file")
    if "=" in base:
        base, settings = DEFAULT, [base, *settings]
    given: dict[str, Any] = {}
    for setting in settings:
        key, _, value = (piece.strip() for piece in setting.partition("="))
        if key in given or RIVALS.get(key) in given:
            raise SwaaError(f"{key} is set twice, or beside {RIVALS.get(key)}: give it once")
        given[key] = load_yaml(value.encode(), key)
        if key in LAYER_LISTS and isinstance(given[key], int):
            raise SwaaError(f"a list of layers stands in brackets, as in {key}=[{value},…]")
    return override(read_recipe(base), given)


def _settled(asked: Asked, subject: Subject) -> Variant:
    if asked.recipe is None:
        if subject.swaa is None:
            raise SwaaUsageError(f"--recipes {OWN}: {subject.name} is not a converted repo, so it has no recipe")
        return Variant(asked.name, subject.swaa)
    with named(f"--recipes {asked.name}"):
        return _fitted(asked.name, asked.recipe, subject)


def _fitted(name: str, recipe: Recipe, subject: Subject) -> Variant:
    notes = []
    if recipe.interleave == "auto":
        parity = best_parity(subject.source, dict(subject.config))
        recipe = replace(recipe, interleave=parity.interleave)
        notes.append(f"interleave {parity.interleave} ({parity.evidence})")
    recipe, dropped = clipped(recipe, subject.layers)
    if dropped:
        notes.append(f"layers past the last are left out: {', '.join(map(str, dropped))}")
    swaa = swaa_config(recipe, full_layers(recipe, subject.layers), subject.layers)
    return Variant(name, swaa, "; ".join(notes) or None)
