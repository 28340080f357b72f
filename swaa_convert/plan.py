"""The plan of one conversion: everything that is decided before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from swaa_convert.chat_template import add_cot
from swaa_convert.config_json import converted_config, swaa_config
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family, shipped_files
from swaa_convert.foreign_code import CODE
from swaa_convert.layers import clipped, full_layers
from swaa_convert.manifest import MANIFEST
from swaa_convert.merge.adapter import Adapter
from swaa_convert.merge.adapter_checks import check_adapter
from swaa_convert.parity import Parity, best_parity
from swaa_convert.recipe import Recipe
from swaa_convert.recipe_file import RECIPE_FILE
from swaa_convert.source import Source
from swaa_convert.source_checks import check_source, depth_of
from swaa_convert.source_files import check_names
from swaa_convert.weights import INDEX, SINGLE, find_weights

CARD = "README.md"
SOURCE_CARD = "README.source.md"
# Code is never copied; other weight formats are not the weights that we convert.
_LEFT_OUT = CODE | frozenset(
    ".safetensors .bin .pt .pth .ckpt .gguf .ggml .onnx .onnx_data .h5 .msgpack .ot .tflite .mlmodel"
    " .pkl .pickle .npz .nemo .tar .gz .zip".split()
)


@dataclass(frozen=True)
class Plan:
    """What a conversion will do."""

    source: Source
    family: Family
    recipe: Recipe
    parity: Parity | None
    source_config: Mapping[str, Any]
    config: dict[str, Any]
    depth: int
    full: tuple[int, ...]
    weights: tuple[str, ...]
    small: tuple[str, ...]
    templates: Mapping[str, bytes]
    dropped: tuple[int, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    hints: tuple[str, ...] = ()

    @property
    def swaa(self) -> dict[str, Any]:
        """The `swaa_config` object."""
        found: dict[str, Any] = self.config["swaa_config"]
        return found

    @property
    def fa_decode(self) -> list[int]:
        """The layers with FA decode."""
        forced = self.swaa["force_fa_decode"]
        return forced if isinstance(forced, list) else list(range(self.depth if forced else 0))

    @cached_property
    def size(self) -> int:
        """Bytes to copy."""
        return sum(self.source.files[name] for name in (*self.weights, *self.small))

    @property
    def code(self) -> tuple[str, ...]:
        """The modeling files that the repo carries."""
        return shipped_files(self.family)


def make_plan(source: Source, recipe: Recipe, *, clip_layers: bool = False, adapters: Sequence[Adapter] = ()) -> Plan:
    """Check the source and settle every choice; nothing large is fetched for it."""
    _refuse_strange(source)
    config, family = check_source(source)
    hints = [hint for adapter in adapters if (hint := check_adapter(adapter, source, config))]
    weights = find_weights(source)
    parity = best_parity(source, config) if recipe.interleave == "auto" else None
    if parity is not None:
        recipe = replace(recipe, interleave=parity.interleave)
    depth = depth_of(source, config)
    recipe, dropped = clipped(recipe, depth) if clip_layers else (recipe, ())
    full = full_layers(recipe, depth)
    small = tuple(name for name in source.files if _is_copied(name))
    check_names(source, (*weights, *small))
    swaa = swaa_config(recipe, full, depth)
    return Plan(
        source=source,
        family=family,
        recipe=recipe,
        parity=parity,
        source_config=config,
        config=converted_config(config, family, swaa),
        depth=depth,
        full=full,
        weights=weights,
        small=small,
        templates=_reasoning_templates(source, small, recipe) if recipe.cot else {},
        dropped=dropped,
        adapters=tuple(adapters),
        hints=tuple(hints),
    )


def _refuse_strange(source: Source) -> None:
    """A pipe or a broken link among the files that a conversion reads."""
    for name, what in source.strange().items():
        needed = name in ("config.json", SINGLE, INDEX) or name.endswith((".safetensors", ".json", ".jinja"))
        if needed or (what != "a folder" and _is_copied(name)):
            raise SwaaError(f"{source.name}: {name} is {what}: put the file itself there, or remove it")


def _reasoning_templates(source: Source, small: tuple[str, ...], recipe: Recipe) -> dict[str, bytes]:
    """The files that change for `cot`: every form of chat template that the source has."""
    files = {name: source.read(name) for name in small if _may_hold_template(name)}
    return add_cot(files, str(source.read_json("config.json")["model_type"]), recipe.window)


def _may_hold_template(name: str) -> bool:
    return name.endswith(".jinja") or name in ("tokenizer_config.json", "chat_template.json")


def _is_copied(name: str) -> bool:
    """Whether a file other than weights belongs into the repo as it is."""
    path = PurePosixPath(name)
    written = {"config.json", CARD, SOURCE_CARD, RECIPE_FILE, MANIFEST, "adapter_config.json"}
    if name in written or name.endswith((".index.json", ".index.fp32.json")) or path.name.startswith("."):
        return False
    in_place = len(path.parts) == 1 or (path.parts[0] == "additional_chat_templates" and len(path.parts) == 2)
    return in_place and path.suffix.lower() not in _LEFT_OUT
