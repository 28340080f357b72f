"""Which adapters can be merged into which source, as far as their configuration says; the rest is refused by name."""

import re
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.merge.adapter import CONFIG, Adapter
from swaa_convert.source import Source

_PROMPTS = {"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT"}
# What training on a quantized copy of a model adds to its name; the copy's weights came from that model.
_COPY = re.compile(r"(-(unsloth|bnb|4bit|8bit|awq|gptq|int4|int8|fp8|w4a16|dynamic))+$")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def check_adapter(adapter: Adapter, source: Source, config: dict[str, Any]) -> str | None:
    """Refuse what cannot be merged into `source` with this config.json; return a hint if its base may differ."""
    _refuse_other_methods(adapter)
    _refuse_quantized(adapter, source, config)
    if adapter.config.get("layer_replication"):
        raise SwaaError(
            f"{adapter.name} repeats layers of its base (layer_replication), which makes another model: "
            "merge it with peft's merge_and_unload, save that and convert it"
        )
    return _base_hint(adapter, source)


def _refuse_other_methods(adapter: Adapter) -> None:
    method = str(adapter.config.get("peft_type"))
    if method == "LORA":
        return
    if method in _PROMPTS:
        raise SwaaError(
            f"{adapter.name} is a {method} adapter, which no weights can hold: convert the source without --lora, "
            "and load the adapter onto the result"
        )
    if method == "None":
        raise SwaaError(f"{adapter.name}: {CONFIG} names no peft_type: save the adapter again with peft")
    raise SwaaError(
        f"{adapter.name} is a {method} adapter, and --lora merges LoRA only: merge it with peft's merge_and_unload, "
        "save that and convert it"
    )


def _refuse_quantized(adapter: Adapter, source: Source, config: dict[str, Any]) -> None:
    quantization = config.get("quantization_config") or config.get("compression_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    raise SwaaError(
        f"{source.name} is quantized ({method or 'quantization_config in config.json'}), and a LoRA cannot be merged "
        f"into such weights: give the unquantized model, or drop --lora and load {adapter.name} onto the result"
    )


def _base_hint(adapter: Adapter, source: Source) -> str | None:
    """Two Hub ids that name different models are refused; a different path or owner is only said."""
    names = (source.repo_id or source.name, adapter.base)
    if not adapter.base or names[0] == names[1]:
        return None
    ours, theirs = (_model(name) for name in names)
    if ours != theirs and source.repo_id and _HUB_ID.fullmatch(adapter.base):
        raise SwaaError(
            f"{adapter.name} was trained on {adapter.base}, not on {source.repo_id}: convert {adapter.base}, "
            f"or correct base_model_name_or_path in a copy of its {CONFIG}"
        )
    if ours == theirs and not source.repo_id:
        return None
    return f"{adapter.name} names {adapter.base} as its base; it goes into {names[0]} if the shapes fit"


def _model(name: str) -> str:
    """The part of a path or an id that names the model."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return _COPY.sub("", last.lower())
