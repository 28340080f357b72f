"""The attention that windowed layers run: registered with transformers under a name of its own."""

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

from .swaa_blocks import blocked_attention
from .swaa_cache import capacity
from .swaa_flash import takes_flash, two_pass_attention
from .swaa_flex import flex_attention, flex_or_blocks, takes_flex
from .swaa_mask import Rule, combine, eager_attention, rule_mask, take_columns
from .swaa_state import SwaaState

BACKENDS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
# What servers set for models that they run through transformers, and what helps there.
SERVERS = {
    "vllm": "install swaa-convert beside vLLM (pip install swaa-convert; if it is there, update it and vLLM), and "
    "don't set model_impl='transformers'",
    "sglang": "SGLang can't serve it yet; serve with vLLM and pip install swaa-convert beside it",
}

# Repositories of different versions live in one process: each registers its own code under its own module's name.
NAME = f"swaa:{__name__}"

# Padding takes another kernel, which loses 0.3 ms per layer to cuDNN's at this length: still less than planning.
PADDED_KEYS = 16384

_lock = threading.Lock()
_decoding = 0  # forward passes that run without cuDNN
_had_cudnn = False


def check_backend(name: str | None) -> None:
    """Raises ValueError for an `attn_implementation` without an SWAA kernel, a server's own included."""
    if name in BACKENDS:
        return
    way_out = SERVERS.get(str(name), f"load with one of {', '.join(map(repr, BACKENDS))}")
    if "/" in str(name):
        # transformers puts a kernel of the Hub, of this name, in the place of a flash-attention that isn't installed.
        way_out = f"kernels of the Hub are not used; install flash-attn itself, or {way_out}"
    raise ValueError(
        f"SWAA has no attention kernel for attn_implementation={name!r} and will not serve full attention in its "
        f"place: {way_out}"
    )


def decode_kernels(state: SwaaState) -> AbstractContextManager[None]:
    """In which the layers of one forward pass run: on a GPU one more token per row is not for cuDNN.

    PyTorch prefers cuDNN on Hopper and later, and cuDNN plans anew for each number of keys: 35 to 40 ms of the host for
    each token of a growing cache, full layers and stock models included. flash-attention's kernel, which PyTorch has
    too, takes 0.04 ms per layer longer after 128k tokens, and plans nothing.
    """
    # A graph keeps its kernel, and a static cache has one number of keys.
    if torch.compiler.is_compiling() or state.length is None or capacity(state.cache):
        return nullcontext()
    tokens, stock_masks = state.queries.position, state.backend == "sdpa" and state.user_mask is None
    single = tokens.is_cuda and tokens.shape[1] == 1 and (state.aligned or state.length <= PADDED_KEYS)
    return without_cudnn() if single and stock_masks and _may_use_flash() else nullcontext()


def _may_use_flash() -> bool:
    """Whether PyTorch's own flash-attention is built in and allowed."""
    cuda = torch.backends.cuda
    return bool(cuda.flash_sdp_enabled() and cuda.is_flash_attention_available())  # type: ignore[no-untyped-call]


@contextmanager
def without_cudnn() -> Iterator[None]:
    """PyTorch's attention takes another kernel than cuDNN's; in other threads too, for it is one switch for all."""
    global _decoding, _had_cudnn
    with _lock:
        if _decoding == 0:
            _had_cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
            torch.backends.cuda.enable_cudnn_sdp(False)
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            # Where another repo's copy of this had switched it off, that copy switches it on again.
            if _decoding == 0 and _had_cudnn:
                torch.backends.cuda.enable_cudnn_sdp(True)


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
    sees_all = swaa.sees_all(layer) and swaa.user_mask is None
    if sees_all or (swaa.is_plain(rule) and swaa.holds_all(layer, key.shape[2])):
        # On a CPU the stock flex kernel fails as soon as the length changes (torch 2.13); ours computes the same.
        if swaa.backend != "flex_attention" or query.device.type != "cpu":
            mask = None if sees_all else attention_mask
            stock, caller = _stock(module, swaa.backend), module
            if swaa.backend.startswith("flash_attention"):
                caller = _StockModule(module)  # type: ignore[assignment]
            result: tuple[Tensor, Tensor | None] = stock(
                caller, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs
            )
            return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if swaa.backend == "eager":
        return _eager(query, key, value, swaa, layer, rule, scale, dropout)
    output = _windowed(query, key, value, swaa, layer, rule, scale, dropout)
    return output.transpose(1, 2).contiguous(), None


def _windowed(
    query: Tensor, key: Tensor, value: Tensor, state: SwaaState, layer: int, rule: Rule, scale: float, dropout: float
) -> Tensor:
    """The fastest exact kernel that the caller's backend has for these tokens on this device."""
    keys = state.keys_of(layer, key.shape[2])
    call = (query, key, value, keys, state, rule, scale)
    if state.backend == "sdpa":
        quick = not dropout and takes_flex(query, state)
        return flex_or_blocks(*call) if quick else blocked_attention(*call, dropout)
    two_pass = takes_flash(query, state, rule)
    if not two_pass and not takes_flex(query, state):
        return blocked_attention(*call, dropout)
    if dropout:
        raise ValueError(
            f"{state.backend} has no dropout in windowed layers: set attention_dropout to 0 or use "
            "attn_implementation='sdpa'"
        )
    return two_pass_attention(*call) if two_pass else flex_attention(*call)


def _eager(
    query: Tensor, key: Tensor, value: Tensor, state: SwaaState, layer: int, rule: Rule, scale: float, dropout: float
) -> tuple[Tensor, Tensor]:
    keys = state.keys_of(layer, key.shape[2]).to(query.device)
    mask = rule_mask(state.queries.to(query.device), keys, rule)
    user_mask = None if state.user_mask is None else take_columns(state.user_mask.to(query.device), keys)
    output, weights = eager_attention(query, key, value, combine(mask, user_mask, query.dtype), scale, dropout)
    return output.transpose(1, 2).contiguous(), weights


class _StockModule:
    """An attention module under the model's own configuration: the stock flash-attention looks up its library by the
    name that stands there, which in a windowed layer is ours.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.config = module.swaa_stock_config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


def _stock(module: nn.Module, backend: str) -> Any:
    """The kernel that the source model would run."""
    if backend != "eager":
        return ALL_ATTENTION_FUNCTIONS[backend]
    # Families may differ in their eager attention, which each keeps beside its attention module.
    return sys.modules[type(module).__module__].eager_attention_forward


AttentionInterface.register(NAME, swaa_attention)
