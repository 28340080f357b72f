"""The converted repo's config.json: the source's, with our names and one namespaced object."""

import json
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.families import Family
from swaa_convert.layers import fa_decode_layers
from swaa_convert.recipe import Recipe
from swaa_convert.resources import shipped_module

SWAA_CONFIG_VERSION = 1


def swaa_config(recipe: Recipe, full: tuple[int, ...], depth: int) -> dict[str, Any]:
    """The `swaa_config` object, in the reference code's names."""
    return {
        "sliding_window_size": recipe.window,
        "keep_first": recipe.keep_first,
        "force_fa_decode": fa_decode_layers(recipe, depth),
        "non_sliding_layers": list(full),
        "fa_tail": recipe.fa_tail,
        "version": SWAA_CONFIG_VERSION,
    }


def converted_config(source: dict[str, Any], family: Family, swaa: dict[str, Any]) -> dict[str, Any]:
    """The source's keys in their order and with their values, except for what names the model."""
    return {
        **source,
        "architectures": [family.swaa_architecture],
        "model_type": family.swaa_model_type,
        **_older_rope(source),
        **_older_experts(source),
        "auto_map": family.auto_map,
        "swaa_config": swaa,
    }


def dump_json(value: dict[str, Any]) -> str:
    """JSON as transformers writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _older_experts(config: dict[str, Any]) -> dict[str, Any]:
    """`num_experts` where only the newer `num_local_experts` stands: older versions would take 128."""
    if config["model_type"] != "qwen3_moe" or "num_experts" in config or "num_local_experts" not in config:
        return {}
    return {"num_experts": config["num_local_experts"]}


def _older_rope(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta`, `rope_scaling` and their like where only the newer `rope_parameters` stands.

    transformers 4.57 does not know the newer form and would silently take a theta of 10000.
    """
    newer = config.get("rope_parameters")
    if newer is None or "rope_theta" in config:
        return {}
    if not isinstance(newer, dict) or "rope_theta" not in newer:
        raise SwaaError(f"rope_parameters in config.json has no rope_theta: {newer!r}")
    older: dict[str, Any] = shipped_module("swaa_rope").older_rope(newer)
    return older
