"""What SWAA can't be served with: one line each, before anything is answered. What it can't tell, it warns about."""

from typing import Any

from vllm.config import VllmConfig
from vllm.logger import init_logger

from swaa_convert.vllm.shipped.swaa_settings import SwaaSettings

# Methods whose drafts come from the text, not from a model with a KV cache of its own.
_DRAFTS = ("ngram", "ngram_gpu", "suffix")
# Version 2 writes the log-sum-exp of queries without keys, which our pieces have, over that of others and past the end
# (Dao-AILab/flash-attention#2573); 4 is untried.
FLASH_VERSION = 3


def refuse_options(vllm_config: VllmConfig, settings: SwaaSettings) -> None:
    """Raises ValueError for options of the server under which tokens could be wrong."""
    if vllm_config.kv_transfer_config is not None:
        _refuse(
            "a KV connector (kv_transfer_config, kv_offloading_size): it would move generated tokens' KV, or blocks "
            "that SWAA frees"
        )
    parallel = vllm_config.parallel_config
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            _refuse(f"{name}={getattr(parallel, name)}: use tensor parallelism")
    if getattr(parallel, "use_ubatching", False):
        _refuse("dual batch overlap (enable_dbo): half a batch comes without prompt lengths")
    drafts = vllm_config.speculative_config
    if drafts is not None and drafts.method not in _DRAFTS:
        _refuse(f"speculative decoding by {drafts.method!r}: use one of {', '.join(_DRAFTS)}")
    dtype = vllm_config.cache_config.cache_dtype
    if dtype not in ("auto", "float32", "float16", "bfloat16"):
        _refuse(f"kv_cache_dtype={dtype!r}: use 'auto', or 'bfloat16' if the repository's quantization asks for this")


def refuse_layer(layer: Any, expected: type[Any]) -> None:
    """Raises ValueError for a layer that does more than plain causal attention."""
    impl = layer.impl
    extras = {
        "is a kind of its own": type(layer) is not expected,
        "has a window of its own": layer.sliding_window is not None,
        "has ALiBi": getattr(impl, "alibi_slopes", None) is not None,
        "caps its scores": getattr(impl, "logits_soft_cap", None) not in (None, 0),
        "has learned sinks": getattr(impl, "sinks", None) is not None,
        "shares another layer's KV": layer.kv_sharing_target_layer_name is not None,
    }
    for what, there in extras.items():
        if there:
            _refuse(f"{layer.layer_name}, whose attention {what}: use the repository with transformers")


def refuse_kernel(impl: Any) -> None:
    """Raises ValueError for a version of flash-attention that can't compute our pieces, or hasn't been seen to."""
    version = getattr(impl, "vllm_flash_attn_version", FLASH_VERSION)
    if version != FLASH_VERSION:
        _refuse(f"flash-attention {version}: start vLLM with --attention-backend TRITON_ATTN")


def warn_of_beams() -> None:
    """Where a layer has FA decode: a beam's next step can't be told from somebody's prompt, and so not be refused."""
    # Once, not by each process of a server. Of loggers, vLLM shows its own and those below.
    init_logger(f"vllm.{__name__}").warning_once(
        "SWAA with FA decode: beam_search sends what it generated back as prompt, whose tokens are windowed; "
        "use other sampling"
    )


def _refuse(what: str) -> None:
    raise ValueError(f"SWAA can't be served with {what}")
