"""Recipes by purpose, from the paper's recommendations; each file says its evidence in comments."""

from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, nearest
from swaa_convert.recipe_file import parse_recipe, read_recipe_file

DEFAULT = "balanced"
_FOLDER = Path(__file__).parent
# From the most careful to the fastest, the untuned ones first.
NAMES = ("quality", "balanced", "efficiency", "quality-lora", "balanced-lora", "efficiency-lora")


class UnknownRecipe(SwaaError):
    """A word that names neither a preset nor a recipe file."""


def preset_text(name: str) -> str:
    """A preset's YAML with its comments."""
    if name not in NAMES:
        raise UnknownRecipe(f"no preset {name!r}: {nearest(name, NAMES)}")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def read_preset(name: str) -> tuple[dict[str, Any], str]:
    """(recipe keys, one-line summary) of a preset."""
    recipe, notes = parse_recipe(preset_text(name).encode(), f"preset {name}")
    return recipe, str(notes["summary"])


def read_recipe(name: str) -> dict[str, Any]:
    """The recipe keys of a preset or of a file."""
    if name in NAMES:
        return read_preset(name)[0]
    path = Path(name).expanduser()
    if not path.exists():
        raise UnknownRecipe(f"no recipe file and no preset {name!r}: {nearest(name, NAMES)}")
    return read_recipe_file(path)
