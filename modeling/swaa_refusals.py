"""What the installed transformers computes wrongly for any model, and is therefore refused here."""

import inspect
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.generation import GenerationMixin

from .swaa_cache import cache_in, capacity
from .swaa_state import SwaaState

_DRAFTS = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])


def refuse_broken(model: Any, inputs: Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises NotImplementedError for a call of `generate` that would silently give wrong tokens."""
    config = _generation_config(model, args, kwargs)
    cache = cache_in(kwargs)
    filled = cache is not None and cache.get_seq_length() > 0
    input_ids = inputs if inputs is not None else kwargs.get("input_ids")
    if _asks(("prefill_chunk_size",), config, kwargs):
        if VERSION == (5, 2):
            _refuse("chunked prefill", "leave prefill_chunk_size unset")
        kind = str(kwargs.get("cache_implementation", getattr(config, "cache_implementation", None)))
        if VERSION in ((5, 0), (5, 1)) and ("static" in kind or getattr(cache, "is_compileable", False)):
            _refuse("chunked prefill into a static cache", "leave prefill_chunk_size unset")
        if filled and VERSION < (5, 21):
            _refuse("chunked prefill onto a filled cache", "leave prefill_chunk_size unset")
        if VERSION < (5, 0) and _is_padded(input_ids, config, kwargs):
            _refuse("chunked prefill of a padded batch", "leave prefill_chunk_size unset")
    if filled and _reads_prompts_twice() and _asks(_DRAFTS, config, kwargs):
        _refuse("assisted decoding onto a filled cache", "start from an empty cache, or generate without drafts")
    if VERSION in ((5, 0), (5, 1), (5, 2)) and _asks(("assistant_early_exit",), config, kwargs):
        _refuse("drafts that exit early", "leave assistant_early_exit unset")
    guidance = kwargs.get("guidance_scale", getattr(config, "guidance_scale", None))
    if guidance not in (None, 1) and model.model.swaa.force_fa_decode:
        raise NotImplementedError(
            "guidance_scale runs the model a second time without saying which tokens are generated, "
            "which FA decode must know: leave it unset"
        )


def exits_early(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of `generate` drafts with the model's own first layers."""
    return _asks(("assistant_early_exit",), _generation_config(model, args, kwargs), kwargs)


def stock_flash_mask(mask: Tensor | None, state: SwaaState, rows: int) -> Tensor | None:
    """What keeps the stock flash-attention from a static cache's free slots: a 2D mask that ends before them.

    Raises NotImplementedError where the stock layers would drop such a mask, or none can be made.
    """
    slots = capacity(state.cache)
    if slots == 0 or slots == state.length:
        return mask
    dropped = mask is None or (not torch.compiler.is_compiling() and bool((mask != 0).all()))
    if dropped and VERSION < (5, 13):
        _refuse(f"{state.backend} over a static cache", "use attn_implementation='sdpa' or a dynamic cache")
    if mask is None and state.length is None:
        raise NotImplementedError(f"{state.backend} over a static cache needs an attention_mask of the tokens so far")
    if mask is None:
        return torch.ones(rows, state.length or 0, dtype=torch.long, device=state.keys.position.device)
    return mask


def refuse_crossing(model: Any, prompt: int, length: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises NotImplementedError for chunks or drafts across the length at which LongRoPE changes for all tokens."""
    config = _generation_config(model, args, kwargs)
    wanted = {name: kwargs.get(name) or getattr(config, name, None) for name in ("max_new_tokens", "max_length")}
    end = prompt + wanted["max_new_tokens"] if wanted["max_new_tokens"] else wanted["max_length"] or prompt + 20
    what = f"across {length} tokens, where LongRoPE changes for what is cached too"
    if prompt > length and _asks(("prefill_chunk_size",), config, kwargs):
        raise NotImplementedError(f"chunked prefill {what}, isn't supported: leave prefill_chunk_size unset")
    if prompt <= length < end and _asks(_DRAFTS, config, kwargs):
        raise NotImplementedError(
            f"assisted decoding {what}, isn't supported: generate without drafts, or {length - prompt} new tokens"
        )


def _refuse(what: str, way_out: str) -> None:
    raise NotImplementedError(
        f"transformers {transformers.__version__} can't compute {what} rightly: {way_out}, or install another version"
    )


def _generation_config(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return (args[0] if args else kwargs.get("generation_config")) or model.generation_config


def _asks(names: tuple[str, ...], config: Any, kwargs: dict[str, Any]) -> bool:
    return any(kwargs.get(name, getattr(config, name, None)) for name in names)


def _is_padded(input_ids: Tensor | None, config: Any, kwargs: dict[str, Any]) -> bool:
    """Whether `generate` will see padding: in the mask, or inferred from the padding token as it does itself."""
    mask = kwargs.get("attention_mask")
    if mask is not None:
        return bool((mask == 0).any())
    pad = kwargs.get("pad_token_id", getattr(config, "pad_token_id", None))
    return pad is not None and input_ids is not None and bool((input_ids == pad).any())


def _reads_prompts_twice() -> bool:
    """Versions whose inputs are cut by this argument don't cut them in the first pass of assisted decoding."""
    return "next_sequence_length" in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
