"""The options that make up a recipe, and the recipe that they make: a base with the flags on top."""

from collections.abc import Callable, Iterable
from typing import Any

from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.grouped_help import options_of, parsed
from swaa_convert.presets import DEFAULT, UnknownRecipe, read_preset, read_recipe
from swaa_convert.recipe import RIVALS, Recipe, override, recipe_from
from swaa_convert.safe_yaml import load_yaml
from swaa_convert.sizes import parse_layers, parse_size

_recipe = options_of("Recipe")


def _layer_list(text: str) -> tuple[int, ...]:
    """Layers as typed; an empty shell variable must not window every layer."""
    layers = parse_layers(text)
    if not layers:
        raise ValueError("names no layer: say --interleave none, or --no-fa-decode")
    return layers


_OPTIONS = (
    _recipe("--recipe", "base", metavar="FILE|PRESET", help="Start from a recipe; see `swaa-convert recipes`."),
    _recipe("--window", metavar="N", callback=parsed(parse_size), help="Keys in a window: 2048 or 2k."),
    _recipe("--keep-first", metavar="N", callback=parsed(parse_size), help="First tokens that all see (sinks)."),
    _recipe(
        "--interleave",
        metavar="WORD",
        help="Layers that KEEP full attention: odd, even, every:N, every:N+K, none or auto (counted from 0).",
    ),
    _recipe("--full-layers", metavar="LIST", callback=parsed(_layer_list), help="The same as a list: 1,5,9."),
    _recipe("--fa-decode/--no-fa-decode", default=None, help="Generated tokens see everything."),
    _recipe("--fa-decode-layers", metavar="LIST", callback=parsed(_layer_list), help="FA decode there only."),
    _recipe("--fa-tail", metavar="N", callback=parsed(parse_size), help="Last prompt tokens that see everything."),
    _recipe("--cot/--no-cot", default=None, help="The chat template asks for reasoning before the answer."),
    _recipe("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Set a recipe key as YAML: window=null."),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the recipe's options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


Carried = tuple[dict[str, Any], str] | None


def recipe_of(base: str | None, flags: dict[str, Any], sets: Iterable[str], carried: Carried = None) -> Recipe:
    """The recipe asked for: `--recipe`, what an adapter carries or the default, with flags and `--set` on top."""
    given = {key: value for key, value in flags.items() if value is not None}
    for key, value in map(_assignment, sets):
        if key in given:
            raise SwaaUsageError(f"{key} is set twice: give it once")
        given[key] = value
    _refuse_rivals(given)
    values = carried[0] if carried and base is None else _base(base)
    try:
        return recipe_from(override(values, given))
    except SwaaError as error:
        # The base was checked by itself, so it is the flags.
        raise SwaaUsageError(error.message) from error


def _base(name: str | None) -> dict[str, Any]:
    """What `--recipe` names; a word that is neither a preset nor a file is a mistake on the command line."""
    try:
        return read_preset(DEFAULT)[0] if name is None else read_recipe(name)
    except UnknownRecipe as error:
        raise SwaaUsageError(error.message) from error


def recipe_origin(base: str | None, flags: dict[str, Any], sets: Iterable[str], carried: Carried = None) -> str:
    """Where the recipe starts from and what was changed, in words."""
    start = base or (carried[1] if carried else f"{DEFAULT}, the default")
    given = [key for key, value in flags.items() if value is not None]
    changed = [*given, *(text.partition("=")[0] for text in sets)]
    if changed:
        return f"{start}, with your {', '.join(changed)}"
    return start if base or carried else f"{start}: {read_preset(DEFAULT)[1]}"


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SwaaUsageError(f"--set takes KEY=VALUE, not {text!r}")
    try:
        return key.strip(), load_yaml(value.encode(), f"--set {key.strip()}")
    except SwaaError as error:
        raise SwaaUsageError(error.message) from error


def _refuse_rivals(given: dict[str, Any]) -> None:
    for key, rival in RIVALS.items():
        if key in given and rival in given and not given[key] is given[rival] is True:
            first, second = (f"--{name.replace('_', '-')}" for name in (key, rival))
            raise SwaaUsageError(f"{first} and {second} exclude each other: give one of them")
