"""The options that name adapters, and the adapters that they or a recipe name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.grouped_help import options_of
from swaa_convert.merge.adapter import Adapter, open_adapter, open_adapters
from swaa_convert.presets import NAMES
from swaa_convert.recipe_file import named, read_lora_note

_lora = options_of("LoRA")
_OPTIONS = (
    _lora("--lora", metavar="PATH|ID", multiple=True, help="Merge this adapter; repeat it for several, in order."),
    _lora("--lora-revision", metavar="REV", multiple=True, help="The adapter's Hub revision; its commit is pinned."),
    _lora("--no-lora", is_flag=True, help="Merge none, even if the recipe names some."),
)


def lora_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the adapters' options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_adapters(
    given: Sequence[str], revisions: Sequence[str], recipe: str | None, *, none: bool, quiet: bool
) -> list[Adapter]:
    """The adapters to merge: those of `--lora`, or else those that made the repo whose recipe is asked for."""
    if none and given:
        raise SwaaUsageError("--lora and --no-lora exclude each other: give one of them")
    if given or revisions:
        return open_adapters(given, revisions, quiet=quiet)
    note = [] if none or recipe is None or recipe in NAMES else _note(recipe)
    if not named(note):
        local = next(each for each in note if not named([each]))
        raise SwaaError(
            f"{recipe} was made with the local adapter {local.get('name')}: give its folder as --lora, or say --no-lora"
        )
    return [open_adapter(str(each["id"]), str(each["revision"]), quiet=quiet) for each in note]


def _note(recipe: str) -> list[dict[str, Any]]:
    path = Path(recipe).expanduser()
    return read_lora_note(path) if path.exists() else []
