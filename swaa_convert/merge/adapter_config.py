"""What stands in adapter_config.json, by type: peft takes the text "false" for true, and stumbles over others late."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.merge.adapter import CONFIG, Adapter

_SWITCHES = ("use_rslora", "use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "ensure_weight_tying")
_NUMBERS = ("lora_alpha", "lora_dropout")
_NAMES = ("modules_to_save", "target_parameters")
_NAMES_OR_ONE = ("target_modules", "exclude_modules", "layers_pattern")
_EXPRESSIONS = ("target_modules", "exclude_modules")
_BIASES = ("none", "all", "lora_only")


def check_settings(adapter: Adapter) -> None:
    """Refuse values of a type or size that no LoRA has; what is absent has peft's default."""
    wrong = _wrong(adapter.config)
    if wrong is not None:
        key, expected = wrong
        raise SwaaError(
            f"{adapter.name}: {key} in {CONFIG} is {adapter.config[key]!r}, but it must be {expected}: "
            "mend it in a copy of the adapter, or save the adapter again with peft"
        )


def _wrong(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """(key, what it must be) of the first wrong value."""
    if not _is_rank(config.get("r", 1)):
        return "r", "a whole number from 1 on"
    for key in _NUMBERS:
        if not _is_number(config.get(key, 0)):
            return key, "a number"
    for key in _SWITCHES:
        if not isinstance(config.get(key), bool | None):
            return key, "true or false"
    if config.get("bias", "none") not in _BIASES:
        return "bias", f"one of {', '.join(_BIASES)}"
    if not isinstance(config.get("init_lora_weights"), bool | str | None):
        return "init_lora_weights", "true, false or the name of a start"
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        return "base_model_name_or_path", "the name of a model"
    return _wrong_modules(config) or _wrong_patterns(config)


def _wrong_modules(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Modules and layers by name or number."""
    for key in _NAMES:
        if config.get(key) is not None and not (_is_list(config[key], str) and all(config[key])):
            return key, "a list of names or null"
    for key in _NAMES_OR_ONE:
        if not isinstance(config.get(key), str | None) and not _is_list(config[key], str):
            return key, "a name, a list of names or null"
    for key in _EXPRESSIONS:
        if isinstance(config.get(key), str) and not _are_expressions([config[key]]):
            return key, "a valid regular expression"
    patterns = config.get("layers_pattern") or []
    if not _are_expressions([patterns] if isinstance(patterns, str) else patterns):
        return "layers_pattern", "one or more valid regular expressions"
    layers = config.get("layers_to_transform")
    if layers is not None and type(layers) is not int and not _is_list(layers, int):
        return "layers_to_transform", "a layer's number, a list of them or null"
    tokens = config.get("trainable_token_indices")
    lists = tokens.values() if isinstance(tokens, dict) else [tokens]
    if tokens is not None and not all(each and _is_list(each, int) for each in lists):
        return "trainable_token_indices", "a list of numbers, such lists by module or null"
    return None


def _wrong_patterns(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Settings of some modules; peft does not take null for none here."""
    ranks, alphas = config.get("rank_pattern", {}), config.get("alpha_pattern", {})
    if not (isinstance(ranks, dict) and all(_is_rank(rank) for rank in ranks.values())):
        return "rank_pattern", "an object of whole numbers from 1 on"
    if not (isinstance(alphas, dict) and all(_is_number(alpha) for alpha in alphas.values())):
        return "alpha_pattern", "an object of numbers"
    for key, patterns in (("rank_pattern", ranks), ("alpha_pattern", alphas)):
        # As peft puts them together.
        if not _are_expressions(rf"(.*\.)?({pattern})$" for pattern in patterns):
            return key, "an object whose keys are valid regular expressions"
    return None


def _are_expressions(values: Iterable[str]) -> bool:
    try:
        return all(re.compile(value) for value in values)
    except (re.error, OverflowError, RecursionError):
        return False


def _is_rank(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)
