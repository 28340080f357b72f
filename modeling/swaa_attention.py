"""The attention that windowed layers run: registered with transformers under a name of its own."""

import sys
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from .swaa_blocks import blocked_attention
from .swaa_flex import BLOCK, flex_attention
from .swaa_mask import Rule, combine, eager_attention, rule_mask, take_columns
from .swaa_state import SwaaState

BACKENDS = ("eager", "sdpa", "flex_attention")

# Repositories of different versions live in one process: each registers its own code under its own module's name.
NAME = f"swaa:{__name__}"


def check_backend(name: str | None) -> None:
    """Raises ValueError for an `attn_implementation` without an SWAA kernel, a server's own included."""
    if name not in BACKENDS:
        raise ValueError(
            f"SWAA has no attention kernel for attn_implementation={name!r} and will not serve full attention in its "
            f"place: load with one of {', '.join(map(repr, BACKENDS))}, or serve with a plugin that knows SWAA"
        )


def swaa_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    swaa: SwaaState | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """One windowed layer. query: (batch, heads, q, dim); key, value: (batch, kv_heads, k, dim).

    Returns (batch, q, heads, dim) and, from the eager backend, the weights. `attention_mask` is the stock one; it
    counts only where the rule is plain causal attention, which the stock kernel then computes.
    """
    if swaa is None:
        raise RuntimeError("a windowed SWAA layer was run outside of its model's forward pass")
    layer: int = module.layer_idx  # type: ignore[assignment]
    rule: Rule = module.swaa_rule  # type: ignore[assignment]
    # On a CPU the stock flex kernel fails as soon as the length changes (torch 2.13); ours computes the same.
    stock_works = swaa.backend != "flex_attention" or query.device.type != "cpu"
    if stock_works and swaa.is_plain(rule) and swaa.holds_all(layer, key.shape[2]):
        stock = _stock(module, swaa.backend)
        result: tuple[Tensor, Tensor | None] = stock(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
        return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys = swaa.keys_of(layer, key.shape[2])
    if swaa.backend == "eager":
        return _eager(query, key, value, swaa, layer, rule, scale, dropout)
    # The flex kernel wants whole blocks of queries and knows neither 4D masks nor a length that only the device knows.
    if swaa.backend == "flex_attention" and query.shape[2] >= BLOCK and swaa.user_mask is None and swaa.length:
        if dropout:
            raise ValueError(
                "flex_attention has no dropout: set attention_dropout to 0 or use attn_implementation='sdpa'"
            )
        output = flex_attention(query, key, value, keys, swaa, rule, scale)
    else:
        output = blocked_attention(query, key, value, keys, swaa, rule, scale, dropout)
    return output.transpose(1, 2).contiguous(), None


def _eager(
    query: Tensor, key: Tensor, value: Tensor, state: SwaaState, layer: int, rule: Rule, scale: float, dropout: float
) -> tuple[Tensor, Tensor]:
    keys = state.keys_of(layer, key.shape[2]).to(query.device)
    mask = rule_mask(state.queries.to(query.device), keys, rule)
    user_mask = None if state.user_mask is None else take_columns(state.user_mask.to(query.device), keys)
    output, weights = eager_attention(query, key, value, combine(mask, user_mask, query.dtype), scale, dropout)
    return output.transpose(1, 2).contiguous(), weights


def _stock(module: nn.Module, backend: str) -> Any:
    """The kernel that the source model would run."""
    if backend != "eager":
        return ALL_ATTENTION_FUNCTIONS[backend]
    # Families may differ in their eager attention, which each keeps beside its attention module.
    return sys.modules[type(module).__module__].eager_attention_forward


AttentionInterface.register(NAME, swaa_attention)
