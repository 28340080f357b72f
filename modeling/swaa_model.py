"""What every SWAA base model adds to the stock one: windowed layers, and one state per forward pass for them."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache
from transformers.utils import logging

from .swaa_attention import NAME, check_backend, decode_kernels
from .swaa_cache import CACHE, capacity, give_layers
from .swaa_mask import Rule, Tokens
from .swaa_refusals import stock_flash_mask
from .swaa_settings import SwaaSettings
from .swaa_state import LATER, SwaaState, dense_from_index, dense_from_labels, number_tokens, sequence_starts

logger = logging.get_logger(__name__)


class SwaaModelMixin:
    """Sliding window attention in the layers that `swaa_config` windows. To be listed before the stock base model."""

    config: Any
    layers: Any
    training: bool
    dtype: torch.dtype
    gradient_checkpointing: bool

    def __init__(self, config: Any) -> None:
        """Raises ValueError for a wrong `swaa_config`, or a backend that SWAA has no kernel for."""
        super().__init__(config)  # type: ignore[call-arg]
        self.swaa: SwaaSettings = self.config.swaa_settings()
        self.swaa_rules = _rules(self.swaa, self.config.num_hidden_layers)
        if self.swaa_rules:
            check_backend(self.config._attn_implementation)
            _send_to_swaa(self.layers, self.swaa_rules, self.config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        dense_from: int | Tensor | None = None,
        generated_tokens: Tensor | None = None,
        dense_last: int | Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The stock forward pass under the rule of SWAA.

        dense_from: index in the (padded) row from which on queries are dense where FA decode is on: an int, or a
            tensor of one per row. `generate` sets it to the prompt's length, less `fa_tail`. None: everything is
            prompt.
        generated_tokens: bool (batch, length), which tokens count as generated instead. Labels set it; a loss of
            one's own, computed without labels, must pass it.
        dense_last: how many of the last new queries are dense, instead of `dense_from`.
        cache: `past_key_values`, as versions from 5.24 on name it.
        """
        cache = past_key_values if cache is None else cache
        kernels: AbstractContextManager[None] = nullcontext()
        if self.swaa_rules:
            tokens: Any = input_ids if inputs_embeds is None else inputs_embeds
            if torch.compiler.is_compiling() and cache is None and position_ids is not None:
                # Rows may be packed, and a graph can't look: only who asks for a cache gets one.
                use_cache = use_cache is True
            use_cache = self._uses_cache(use_cache)
            packed = _is_packed(position_ids, attention_mask, cache, use_cache)
            # Packed rows have no one cache; stock layers separate them only without any.
            use_cache = use_cache and not packed
            cache = self.swaa_cache(cache, use_cache)
            starts = sequence_starts(position_ids) if packed and position_ids is not None else None
            if dense_last is not None:
                nowhere = isinstance(dense_last, int) and dense_last == 0
                dense_from = LATER if nowhere else _past_length(cache) + tokens.shape[1] - dense_last
            _check_rows(dense_from, tokens.shape[0])
            state = self._state(tokens, attention_mask, starts, cache, dense_from, generated_tokens)
            attention_mask = self._stock_mask(attention_mask, state, tokens.shape[0])
            kwargs["swaa"], kernels = state, decode_kernels(state)
        with kernels:
            return super().forward(  # type: ignore[misc]
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                **{CACHE: cache},
                **kwargs,
            )

    def swaa_cache(self, cache: Any, use_cache: bool = True) -> Any:
        """The KV cache for this model: windowed layers without FA decode release what they no longer need."""
        released = [(i, rule) for i, rule in self.swaa_rules.items() if not rule.fa_decode]
        if cache is None and use_cache:
            cache = DynamicCache(config=self.config)
        if cache is not None:
            depth = self.config.num_hidden_layers
            give_layers(cache, released, depth)
        return cache

    def _uses_cache(self, use_cache: bool | None) -> bool:
        if self.gradient_checkpointing and self.training:
            return False
        return bool(self.config.use_cache if use_cache is None else use_cache)

    def _state(
        self,
        tokens: Any,
        attention_mask: Any,
        starts: Tensor | None,
        cache: Any,
        dense_from: int | Tensor | None,
        generated: Tensor | None,
    ) -> SwaaState:
        check_backend(self.config._attn_implementation)
        _check_flash(self.config._attn_implementation, attention_mask, starts)
        if attention_mask is not None and getattr(attention_mask, "ndim", None) not in (2, 4):
            raise ValueError("SWAA takes a 2D or 4D attention_mask tensor; prepared masks of other kinds hide padding")
        new, device = tokens.shape[1], tokens.device
        past = _past_length(cache)
        padding = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        padding = _check_padding(padding, past, new)
        user_mask = attention_mask if attention_mask is not None and attention_mask.ndim == 4 else None
        total = past + new if isinstance(past, int) else capacity(cache)
        keys = Tokens(_positions(padding, total, starts, device), starts)
        queries = _last(keys, past, new)
        all_dense = self._mark_dense(queries, past, dense_from, generated)
        state = SwaaState(
            self.config._attn_implementation,
            queries,
            keys,
            past,
            total if isinstance(past, int) else None,
            all_dense,
            user_mask,
            cache,
            padding is None and starts is None,
        )
        for layer, rule in self.swaa_rules.items():
            window_layer = state.window_layers.get(layer)
            if window_layer is not None:
                if window_layer.rule != rule:
                    raise ValueError("the KV cache was filled by a model of another window: start from a fresh cache")
                window_layer.announce(queries.position, padding is not None)
        return state

    def _mark_dense(
        self, queries: Tokens, past: int | Tensor, dense_from: int | Tensor | None, generated: Tensor | None
    ) -> bool:
        """Sets which queries are dense, and returns whether all are."""
        if not any(rule.fa_decode for rule in self.swaa_rules.values()):
            return False
        new, device = queries.position.shape[1], queries.position.device
        if dense_from is not None:
            if isinstance(dense_from, int) and dense_from >= (past + new if isinstance(past, int) else LATER):
                return False
            if isinstance(dense_from, int) and (dense_from == 0 or (isinstance(past, int) and dense_from <= past)):
                queries.dense = torch.ones((1, new), dtype=torch.bool, device=device)
                return True
            queries.dense = dense_from_index(dense_from, past, new, device)
            if isinstance(dense_from, int):
                return False
        elif generated is not None:
            queries.dense = dense_from_labels(generated.to(device), queries, self.swaa.fa_tail)
        else:
            if self.training or (isinstance(past, int) and past > 0):
                logger.warning_once(
                    "A forward pass in training, or onto a filled KV cache, that has neither `labels` nor `dense_from` "
                    "nor `generated_tokens` treats all its tokens as prompt: say which are generated for FA decode."
                )
            return False
        return not torch.compiler.is_compiling() and bool(queries.dense.all())

    def _stock_mask(self, attention_mask: Tensor | None, state: SwaaState, rows: int) -> Tensor | None:
        """What the stock model gets: nothing to build a quadratic mask from, if no layer will read it."""
        # Not all layers run in a draft that exits early.
        rules = [self.swaa_rules.get(layer) for layer in range(self.config.num_hidden_layers)]
        if any(rule is None or state.is_plain(rule) for rule in rules):
            if state.user_mask is not None and state.user_mask.dtype == torch.bool and state.backend == "eager":
                # Stock eager attention would add True as the number 1.
                return torch.where(state.user_mask, 0.0, torch.finfo(self.dtype).min).to(self.dtype)
            if state.backend.startswith("flash_attention"):
                return stock_flash_mask(attention_mask, state, rows)
            return attention_mask
        return torch.empty((1, 1, 0, 0), dtype=torch.bool, device=state.keys.position.device)


def _rules(settings: SwaaSettings, depth: int) -> dict[int, Rule]:
    """The rule of each windowed layer."""
    window = settings.sliding_window_size
    if window is None:
        return {}
    return {
        layer: Rule(window, settings.keep_first, settings.fa_decode(layer))
        for layer in range(depth)
        if settings.windowed(layer)
    }


def _send_to_swaa(layers: Any, rules: dict[int, Rule], config: Any) -> None:
    """Sends the attention of the windowed layers to ours, through a configuration that only they see."""
    windowed = copy.copy(config)
    windowed._attn_implementation_internal = NAME
    for index, rule in rules.items():
        attention = layers[index].self_attn
        attention.config = windowed
        attention.swaa_stock_config = config
        attention.swaa_rule = rule


def _past_length(cache: Any) -> int | Tensor:
    """Tokens before this call. A static cache counts on the device, which a compiled graph must not wait for."""
    past = 0 if cache is None else cache.get_seq_length()
    if isinstance(past, int):
        return past
    # The counter is updated in place during the pass.
    return past.clone() if torch.compiler.is_compiling() else int(past)


def _is_packed(position_ids: Tensor | None, attention_mask: Any, cache: Any, use_cache: bool) -> bool:
    """Whether several sequences may share a row: positions that jump, without a mask, as stock models read them."""
    if position_ids is None or attention_mask is not None or position_ids.shape[-1] < 2:
        return False
    if torch.compiler.is_compiling():
        # A graph can't ask for values; without a cache the packed form is right for a single sequence too.
        return cache is None and not use_cache
    if cache is None and not use_cache:
        return bool((position_ids.diff(dim=-1) != 1).any())
    # Where stock models make a cache they ignore jumps; but positions that begin anew are other sequences.
    anew = (cache is None or cache.get_seq_length() == 0) and bool((position_ids[..., 1:] == 0).any())
    if anew and cache is not None:
        raise ValueError("packed position_ids can't go with a KV cache: pass packed rows without a cache")
    return anew


def _check_flash(backend: str, attention_mask: Any, starts: Tensor | None) -> None:
    """Raises ValueError for what the stock flash-attention of full layers would silently read otherwise."""
    if not backend.startswith("flash_attention"):
        return
    if getattr(attention_mask, "ndim", 2) != 2:
        raise ValueError(f"{backend} takes no 4D attention_mask: use attn_implementation='sdpa'")
    if starts is not None and starts.shape[0] > 1:
        raise ValueError(f"{backend} takes one packed row at a time: use attn_implementation='sdpa' for more")


def _check_rows(dense_from: Any, rows: int) -> None:
    """Raises ValueError for a `dense_from` that is neither an int nor one per row."""
    if isinstance(dense_from, Tensor):
        if dense_from.numel() not in (1, rows):
            raise ValueError(f"dense_from has {dense_from.numel()} values for a batch of {rows}: give one per row")
    elif dense_from is not None and not isinstance(dense_from, int):
        raise ValueError(f"dense_from must be an int or a tensor of one per row, not {dense_from!r}")


def _check_padding(mask: Tensor | None, past: int | Tensor, new: int) -> Tensor | None:
    """The 2D mask, or None where it hides nothing."""
    if mask is None or torch.compiler.is_compiling():
        return mask
    if isinstance(past, int) and mask.shape[1] < past + new:
        raise ValueError(
            f"attention_mask covers {mask.shape[1]} tokens, but the cache and the input together have {past + new}"
        )
    return None if bool((mask != 0).all()) else mask


def _positions(mask: Tensor | None, total: int, starts: Tensor | None, device: torch.device) -> Tensor:
    if starts is not None:
        return number_tokens(None, total, device) - starts
    if mask is None or mask.shape[1] >= total:
        return number_tokens(mask, total, device)
    # A static cache's free slots: as if real, and so later than every query.
    return number_tokens(torch.nn.functional.pad(mask, (0, total - mask.shape[1]), value=1), total, device)


def _last(keys: Tokens, past: int | Tensor, new: int) -> Tokens:
    """The tokens of this call."""
    if isinstance(past, int):
        return keys.narrow(past, new)
    index = (torch.arange(new, device=keys.position.device) + past)[None]
    return keys.gather(index.expand(keys.position.shape[0], -1))
