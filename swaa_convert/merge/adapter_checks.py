"""Which adapters can be merged into which source, as far as their configuration says; the rest is refused by name."""

import re
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.families import families
from swaa_convert.merge.adapter import CONFIG, Adapter
from swaa_convert.merge.adapter_config import check_settings
from swaa_convert.source import Source

_PROMPTS = {"PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "MULTITASK_PROMPT_TUNING", "ADAPTION_PROMPT", "CPT"}
# KaSA cuts the base's weights down when it is loaded, MonteCLoRA samples its own.
_VARIANTS = {"kasa_config": "KaSA", "monteclora_config": "MonteCLoRA"}
# What training on a quantized copy of a model adds to its name; the copy's weights came from that model.
_COPY = re.compile(r"(-(unsloth|bnb|4bit|8bit|awq|gptq|int4|int8|fp8|w4a16|dynamic))+$")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
# A model's class: the family, then what it is for; our own classes and those of parts have the family's name too.
_CLASS = re.compile(r"(?:Swaa)?(\w+?)(?:Text)?(?:PreTrainedModel|LMHeadModel|Model|For[A-Z]\w*)")


def check_adapter(adapter: Adapter, source: Source, config: dict[str, Any]) -> str | None:
    """Refuse what cannot be merged into `source` with this config.json; return a hint if its base may differ."""
    _refuse_other_methods(adapter)
    check_settings(adapter)
    _refuse_variants(adapter)
    _refuse_lost_start(adapter)
    _refuse_other_family(adapter, source, config)
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
    given = adapter.config["peft_type"]
    if not isinstance(given, str) or method.upper() == "LORA":
        raise SwaaError(
            f"{adapter.name}: peft_type in {CONFIG} is {given!r}, but it must be 'LORA': "
            "mend it in a copy of the adapter, or save the adapter again with peft"
        )
    raise SwaaError(
        f"{adapter.name} is a {method} adapter, and --lora merges LoRA only: merge it with peft's merge_and_unload, "
        "save that and convert it"
    )


def _refuse_variants(adapter: Adapter) -> None:
    """Kinds of LoRA whose merge takes more than a module's weights and the adapter's matrices, or is none."""
    for key, variant in _VARIANTS.items():
        if adapter.config.get(key):
            raise SwaaError(
                f"{adapter.name} is a {variant} adapter ({key} in {CONFIG}), which --lora doesn't merge: "
                "merge it with peft's merge_and_unload, save that and convert it"
            )


def _refuse_lost_start(adapter: Adapter) -> None:
    """Starts that peft takes off the base's weights whenever it loads the adapter, and can't find again."""
    start = adapter.config.get("init_lora_weights")
    if not isinstance(start, str):
        return
    if start.startswith("pissa_niter_"):
        why = "by a random SVD that cannot be repeated"
    elif start.startswith("corda"):
        why = "from the inputs of its layers, which are not known any more"
    else:
        return
    raise SwaaError(
        f"{adapter.name} was started {why} (init_lora_weights {start!r} in {CONFIG}): "
        "save it with path_initial_model_for_weight_conversion, or merge it where it was trained"
    )


def _refuse_other_family(adapter: Adapter, source: Source, config: dict[str, Any]) -> None:
    """Models of other families may have the same shapes. A class that transformers does not know says nothing."""
    trained = adapter.config.get("auto_mapping")
    named = trained.get("base_model_class") if isinstance(trained, dict) else None
    if not isinstance(trained, dict) or not isinstance(named, str):
        return
    ours, theirs = config["architectures"][0], _family(named)
    stock = str(trained.get("parent_library") or "transformers.").startswith("transformers.")
    known = stock or theirs in {_family(family.architecture) for family in families()}
    if theirs is not None and known and theirs != _family(ours):
        raise SwaaError(
            f"{adapter.name} was trained on a {named} (auto_mapping in {CONFIG}), but {source.name} is a {ours}: "
            "convert the model that it was trained on"
        )


def _family(name: str) -> str | None:
    """The family that a model's class belongs to, if its name says so."""
    found = _CLASS.fullmatch(name)
    return found[1].lower() if found else None


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
