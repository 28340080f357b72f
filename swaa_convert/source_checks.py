"""What can be converted: a known, FA-pretrained decoder. Everything else is refused by name."""

import re
from importlib.metadata import version
from typing import Any

from packaging.requirements import Requirement

from swaa_convert.config_checks import check_config
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family, families
from swaa_convert.foreign_code import named_code
from swaa_convert.full_attention import check_full_attention
from swaa_convert.source import Source
from swaa_convert.unsupported import why_not

# What stands in a folder that is no transformers checkpoint, and the way out.
_OTHER_FORMATS = {
    "model_index.json": "is a diffusers pipeline, not a causal language model",
    "params.json": "holds weights in their original format: take the repo of the same model in -hf format",
}

# Whose checkpoints came before transformers had the family, and still carry code under the same names.
_PUBLISHED_WITH_COPIES = ("phi", "phi3")


def check_source(source: Source) -> tuple[dict[str, Any], Family]:
    """The source's config.json and its family, or one line that says why it cannot be converted."""
    if "config.json" not in source.files:
        raise SwaaError(f"{source.name} {_without_config(source)}")
    config = _without_copies(source.read_json("config.json"))
    _refuse_converted(source, config)
    _refuse_adapter(source)
    _refuse_remote_code(source, config)
    if config.get("is_encoder_decoder"):
        raise SwaaError(f"{source.name} is an encoder-decoder: only decoder-only language models are supported")
    family = _family(source, config)
    check_config(source.name, config, depth_of(source, config))
    check_full_attention(source.name, config)
    _refuse_remote_tokenizer(source)
    return config, family


def depth_of(source: Source, config: dict[str, Any]) -> int:
    """The number of layers."""
    depth = config.get("num_hidden_layers")
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= 10_000:
        raise SwaaError(f"{source.name}: num_hidden_layers in config.json is {depth!r}, not a number of layers")
    return depth


def _without_config(source: Source) -> str:
    if "adapter_config.json" in source.files:
        return _adapter(source)
    for name, reason in _OTHER_FORMATS.items():
        if name in source.files:
            return reason
    if any(name.endswith(".gguf") for name in source.files):
        return "holds GGUF files: give the safetensors repo that they were made from"
    return "has no config.json, so it is no transformers checkpoint: give a folder or a Hub model that has one"


def _adapter(source: Source) -> str:
    base = source.read_json("adapter_config.json").get("base_model_name_or_path")
    base = base if isinstance(base, str) and base else "its base model"
    return f"is a PEFT adapter, not a model: give {base} as SOURCE and the adapter as --lora"


def _refuse_adapter(source: Source) -> None:
    if "adapter_config.json" in source.files:
        raise SwaaError(
            f"{source.name} holds a model and a PEFT adapter, which transformers would apply: "
            "move the adapter to a folder of its own, and merge it with --lora"
        )


def _refuse_converted(source: Source, config: dict[str, Any]) -> None:
    if "swaa_config" in config or str(config.get("model_type")).startswith("swaa_"):
        raise SwaaError(
            f"{source.name} is already converted: give the source that it was made from (its swaa_recipe.yaml names it)"
        )


def _without_copies(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what names the publisher's copy of stock code: transformers itself prefers its own."""
    kind, code = config.get("model_type"), config.get("auto_map")
    if kind not in _PUBLISHED_WITH_COPIES or not isinstance(code, dict):
        return config
    stock = re.compile(rf"(configuration|modeling)_{kind}\.{kind.capitalize()}(Config|Model|For[A-Z]\w+)")
    for auto, reference in code.items():
        if auto != "AutoTokenizer" and not (isinstance(reference, str) and stock.fullmatch(reference)):
            return config
    return {key: value for key, value in config.items() if key != "auto_map"}


def _refuse_remote_code(source: Source, config: dict[str, Any]) -> None:
    """The source's own Python is never imported, so what needs it cannot be converted."""
    if config.get("auto_map"):
        raise SwaaError(
            f"{source.name} needs its own remote code (auto_map in config.json), which is never run: "
            "take a checkpoint in a stock transformers architecture"
        )


def _refuse_remote_tokenizer(source: Source) -> None:
    name = "tokenizer_config.json"
    if name in source.files and source.read_json(name).get("auto_map"):
        raise SwaaError(
            f"{source.name} has a remote-code tokenizer (auto_map in {name}), which is never run: "
            "save a stock tokenizer into a copy of it first"
        )
    for name in sorted(source.files):
        for key in named_code(source, name) if name.endswith("config.json") and "/" not in name else ():
            raise SwaaError(f"{source.name}: {name} names code to be run ({key}): take that out of a copy of it first")


def _family(source: Source, config: dict[str, Any]) -> Family:
    known = {family.architecture: family for family in families()}
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise SwaaError(
            f"{source.name}: architectures in config.json is {names!r}, "
            'but it must name one, as in ["Qwen3ForCausalLM"]'
        )
    if names[0] not in known:
        raise SwaaError(f"{source.name} is a {names[0]}{why_not(names[0])}")
    family = known[names[0]]
    if config.get("model_type") != family.model_type:
        raise SwaaError(
            f"{source.name}: model_type in config.json is {config.get('model_type')!r}, "
            f"but a {names[0]} has {family.model_type!r}"
        )
    _check_version(source, family)
    return family


def _check_version(source: Source, family: Family) -> None:
    """Without the family in the installed transformers nothing can be checked, and the result can't be loaded."""
    installed = version("transformers")
    if not Requirement(family.needs).specifier.contains(installed, prereleases=True):
        raise SwaaError(
            f"{source.name} is a {family.architecture}, for which {family.needs} is needed, but {installed} is "
            f"installed: pip install '{family.needs}'"
        )
