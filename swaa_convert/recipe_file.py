"""Recipes as YAML: what `--recipe` reads and the swaa_recipe.yaml that a converted repo carries."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from swaa_convert import __version__
from swaa_convert.errors import SwaaError, nearest
from swaa_convert.recipe import KEYS, Recipe, recipe_from
from swaa_convert.safe_yaml import MAX_BYTES, load_yaml

RECIPE_FILE = "swaa_recipe.yaml"
# Said of a recipe, not part of it: a preset's one-line summary, and where a repo came from.
NOTES = ("summary", "source", "lora", "tool")


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The recipe keys of a YAML file, or of a converted repo's folder, checked."""
    return _read(path)[0]


def read_lora_note(path: Path) -> list[dict[str, Any]]:
    """The adapters that a recipe file says were merged."""
    listed = _read(path)[1].get("lora", [])
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise SwaaError(f"{path}: lora must be a list of adapters, not {listed!r}")
    return listed


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = path / RECIPE_FILE if path.is_dir() else path
    try:
        data = _read_bytes(path)
    except OSError as error:
        raise SwaaError(f"{path}: {error.strerror}: give a YAML file or a preset") from error
    return parse_recipe(data, str(path))


def _read_bytes(path: Path) -> bytes:
    """Enough of the file to know whether it is too long; a pipe into which nobody writes is empty."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    with open(handle, "rb") as file:
        return file.read(MAX_BYTES + 1)


def parse_recipe(data: bytes, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(recipe keys, notes) of YAML text, checked; `where` names it in errors."""
    values = load_yaml(data, where)
    if not isinstance(values, dict):
        raise SwaaError(f"{where}: a recipe is a mapping such as `window: 2048`")
    for key in values:
        if key not in KEYS + NOTES:
            raise SwaaError(f"{where}: unknown key {key!r}: {nearest(str(key), KEYS)}")
    recipe = {key: value for key, value in values.items() if key in KEYS}
    try:
        recipe_from(recipe)
    except SwaaError as error:
        raise SwaaError(f"{where}: {error.message}") from error
    return recipe, {key: value for key, value in values.items() if key in NOTES}


def dump_recipe(recipe: Recipe, source: dict[str, str | None], lora: Sequence[dict[str, str | None]] = ()) -> str:
    """swaa_recipe.yaml: the recipe, the source, what was merged and this tool, enough to make the same repo again."""
    values = {key: value for key, value in recipe_values(recipe).items() if value is not None or key == "window"}
    merged = {"lora": list(lora)} if lora else {}
    notes = {"source": source, **merged, "tool": {"name": "swaa-convert", "version": __version__}}
    body = yaml.safe_dump(values | notes, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return f"# {_again(source, lora)}\n{body}"


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields as YAML writes them."""
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _again(source: dict[str, str | None], lora: Sequence[dict[str, str | None]]) -> str:
    revision = f" --revision {source['revision']}" if source.get("revision") else ""
    # Adapters on the Hub are found by the recipe itself.
    merged = "".join(f" --lora {each.get('id') or each.get('name')}" for each in lora) if not named(lora) else ""
    name = source.get("id") or source.get("name")
    return f"To make this repo again: swaa-convert {name}{revision}{merged} --recipe {RECIPE_FILE} --out DIR"


def named(lora: Sequence[dict[str, Any]]) -> bool:
    """Whether these adapters can be had by what a recipe keeps of them."""
    return all(each.get("id") and each.get("revision") for each in lora)
