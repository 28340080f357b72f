"""What stands in a source's config.json, by type and range: what transformers would stumble over later, said early."""

from collections.abc import Mapping
from typing import Any

from swaa_convert.errors import SwaaError

_COUNTS = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
_COUNTS_OR_NONE = (
    *("num_key_value_heads", "head_dim", "max_position_embeddings", "original_max_position_embeddings"),
    *("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step"),
    "output_vocab_size",
)
_NUMBERS = (
    *("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "rope_theta", "partial_rotary_factor", "initializer_range"),
    *("attention_dropout", "residual_dropout", "router_aux_loss_coef", "logit_scale", "clip_qkv"),
    *("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"),
)
_SWITCHES = (
    *("tie_word_embeddings", "use_cache", "use_sliding_window", "is_encoder_decoder"),
    *("attention_bias", "attention_out_bias", "mlp_bias", "use_bias", "use_qk_norm", "qk_layernorm"),
    *("norm_topk_prob", "output_router_logits"),
)
_OBJECTS = ("rope_scaling", "rope_parameters", "quantization_config")
_DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "auto")


def check_config(name: str, config: Mapping[str, Any], depth: int) -> None:
    """Refuse values of a type or size that no model has; `name` is the source's."""
    wrong = _wrong(config, depth)
    if wrong is not None:
        key, expected = wrong
        raise SwaaError(
            f"{name}: {key} in config.json is {config.get(key)!r}, but it must be {expected}: "
            "mend config.json, or fetch the source again"
        )


def _wrong(config: Mapping[str, Any], depth: int) -> tuple[str, str] | None:
    """(key, what it must be) of the first wrong value."""
    for key in _COUNTS + _COUNTS_OR_NONE:
        if not _is_count(config.get(key)) and (config.get(key) is not None or key in _COUNTS):
            return key, "a whole number from 1 on"
    for key in _NUMBERS:
        if not _is_number(config.get(key, 0)) and config[key] is not None:
            return key, "a number"
    for key in _SWITCHES:
        if not isinstance(config.get(key), bool | None):
            return key, "true or false"
    for key in _OBJECTS:
        if not isinstance(config.get(key), dict | None):
            return key, "an object or null"
    if config.get("rope_theta") is not None and config["rope_theta"] <= 0:
        return "rope_theta", "more than 0"
    return _wrong_together(config) or _wrong_layers(config, depth) or _wrong_names(config)


def _wrong_together(config: Mapping[str, Any]) -> tuple[str, str] | None:
    heads = config["num_attention_heads"]
    if heads % (config.get("num_key_value_heads") or heads):
        return "num_key_value_heads", f"a divisor of num_attention_heads, which is {heads}"
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts and (config.get("num_experts_per_tok") or 1) > experts:
        return "num_experts_per_tok", f"at most the number of experts, which is {experts}"
    return None


def _wrong_layers(config: Mapping[str, Any], depth: int) -> tuple[str, str] | None:
    for key in ("sliding_window", "max_window_layers"):
        if config.get(key) is not None and type(config[key]) is not int:
            return key, "a whole number or null"
    kinds = config.get("layer_types")
    listed = isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)
    if kinds is not None and not (listed and len(kinds) == depth):
        return "layer_types", f"a list of {depth} names, one for each layer"
    return None


def _wrong_names(config: Mapping[str, Any]) -> tuple[str, str] | None:
    packed = config.get("quantization_config") is not None
    for key in ("dtype", "torch_dtype"):
        if not packed and config.get(key) is not None and str(config[key]).removeprefix("torch.") not in _DTYPES:
            return key, f"one of {', '.join(_DTYPES)}"
    for key, value in config.items():
        # transformers fetches such a kernel from the Hub and runs it.
        if key.endswith("_implementation") and "/" in str(value):
            return key, "a backend of transformers' own: code from elsewhere is never run"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
