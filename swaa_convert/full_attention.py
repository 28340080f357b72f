"""Whether every layer of a source attends to everything: only such models can be adapted."""

from collections.abc import Mapping
from typing import Any

from swaa_convert.errors import SwaaError

# Windowed where `sliding_window` has a value, which is this one if config.json has none; other families also need
# `use_sliding_window`.
_WINDOWED_BY_VALUE: dict[str, int | None] = {
    "exaone4": 4096,
    "ministral3": None,
    "mistral": 4096,
    "phi3": None,
    "starcoder2": None,
}


def check_full_attention(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a source with windowed or linear layers; fields that are present but switched off do no harm."""
    found = _not_full(config)
    if found is not None:
        raise SwaaError(
            f"{name} already has windowed or linear layers ({found}): "
            "SWAA adapts models that were pretrained with full attention"
        )


def _not_full(config: Mapping[str, Any]) -> str | None:
    """What in config.json says that some layer is not full."""
    kinds = config.get("layer_types")
    other = [kind for kind in kinds or () if kind != "full_attention"]
    if other:
        return f"layer_types has {other[0]} in config.json"
    if config["model_type"] in _WINDOWED_BY_VALUE:
        return _window_by_value(config, listed=kinds is not None)
    if kinds is None and config.get("use_sliding_window") and _slides(config):
        return "use_sliding_window is true in config.json"
    return None


def _window_by_value(config: Mapping[str, Any], *, listed: bool) -> str | None:
    kind, positions = config["model_type"], config.get("max_position_embeddings")
    window = config.get("sliding_window", _WINDOWED_BY_VALUE[kind])
    if window is None or (listed and kind == "exaone4"):
        return None
    if "sliding_window" not in config:
        return f"sliding_window is not in config.json, which means {window}"
    # Phi-3 configs carry a window that reaches past every position. In EXAONE 4 any window changes where RoPE applies.
    if kind != "exaone4" and isinstance(positions, int) and window >= positions:
        return None
    return f"sliding_window is {window} in config.json"


def _slides(config: Mapping[str, Any]) -> bool:
    """Whether stock transformers gives some layer a window where `use_sliding_window` is true."""
    if config.get("sliding_window") is None:
        return False
    if config["model_type"] in ("qwen3_moe", "smollm3"):
        # Their stock code has windows whatever max_window_layers says.
        return True
    first = config.get("max_window_layers", 28)
    return first is None or bool(first < config["num_hidden_layers"])
