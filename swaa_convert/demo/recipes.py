"""The recipes that the demo compares, from the naive window to combinations of methods."""

from dataclasses import dataclass
from typing import Any

from swaa_convert.recipe import Recipe

# The paper's quarter of full layers: 1, 5, 9, …
QUARTER = "every:4+1"


@dataclass(frozen=True)
class Settings:
    """What all recipes share, in tokens."""

    window: int = 64
    keep_first: int = 4
    fa_tail: int = 16


@dataclass(frozen=True)
class Contender:
    """A recipe under the name that the table and the picture show.

    `kind` is "source" (the model as it was trained), "single" (the window with one method at most) or "combined".
    """

    name: str
    kind: str
    recipe: Recipe | None

    @property
    def folder(self) -> str:
        """A folder name of its own: transformers caches embedded code by it."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower()).split()
        return "-".join(["needle", *words])


def contenders(settings: Settings) -> list[Contender]:
    """All of them, the source first."""
    sinks: dict[str, Any] = {"keep_first": settings.keep_first}
    decode: dict[str, Any] = {"fa_decode": True}
    both = sinks | decode
    tail = both | {"fa_tail": settings.fa_tail}

    def made(name: str, kind: str, layers: str = "none", **methods: Any) -> Contender:
        values = {"window": settings.window, "keep_first": 0, "fa_decode": False} | methods
        return Contender(name, kind, Recipe(interleave=layers, **values))

    return [
        Contender("full attention", "source", None),
        made("window alone (naive)", "single"),
        made("sinks", "single", **sinks),
        made("FA decode", "single", **decode),
        made("odd layers full", "single", "odd"),
        made("even layers full", "single", "even"),
        made("FA decode + sinks", "combined", **both),
        made("FA decode + sinks + tail", "combined", **tail),
        made("FA decode + sinks + even", "combined", "even", **both),
        made("FA decode + sinks + odd", "combined", "odd", **both),
        made("FA decode + sinks + 1/4", "combined", QUARTER, **both),
        made("FA decode + sinks + tail + odd", "combined", "odd", **tail),
        made("FA decode + sinks + tail + 1/4", "combined", QUARTER, **tail),
    ]
