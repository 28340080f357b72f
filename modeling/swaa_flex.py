"""Windowed attention through FlexAttention, compiled once per kind of call and never once per length."""

import functools
import importlib.util
import itertools
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention as fused
from transformers.utils import logging

from .swaa_block_mask import BLOCK, Form, block_mask, form_of
from .swaa_blocks import blocked_attention
from .swaa_mask import Rule, Tokens
from .swaa_state import SwaaState

logger = logging.get_logger(__name__)

# What Triton needs on Hopper to reach the speed of the best kernels, by head dimension: left alone, it takes tiles that
# fit older GPUs. Others run as fast as with any options tried. `python examples/bench_kernels.py` measures them.
HOPPER = {
    64: {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 4, "num_stages": 3, "USE_TMA": True},
    128: {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 3, "USE_TMA": True},
    256: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2, "USE_TMA": True},
}
HOPPER_BACKWARD = {
    128: {"BLOCK_M1": 32, "BLOCK_N1": 64, "BLOCK_M2": 64, "BLOCK_N2": 32, "num_warps": 4, "num_stages": 3},
}


@dataclass(frozen=True)
class Kind:
    """Calls that one compiled kernel serves: they differ in batch and length only.

    heads, kv_heads, dim, dtype: of the states; backward: whether autograd follows; flash: through flash-attn-4
    instead of Triton; whole: whether Triton needs no bounds, for both lengths are multiples of BLOCK, which it can't
    tell of lengths that vary; shape: of a CPU's call, where PyTorch compiles for one length only.
    """

    device: torch.device
    rule: Rule
    form: Form
    heads: int
    kv_heads: int
    dim: int
    dtype: torch.dtype
    backward: bool
    flash: bool
    whole: bool
    shape: tuple[int, int, int] | None


HAS_TRITON = importlib.util.find_spec("triton") is not None

KEPT_MASKS = 16

_compiled: dict[Kind, Callable[..., Any]] = {}
_numbers = itertools.count()
_masks: dict[Any, Any] = {}
_masks_lock = threading.Lock()
_without_flash: set[Kind] = set()
_without_flex: set[torch.device] = set()
# What was said of slower forms that ran instead: `swaa-convert bench` shows it beside its figures.
fallbacks: list[str] = []


class NotCompiledError(RuntimeError):
    """The compiler is switched off, for this call at least: the unfused form would run, whose memory is quadratic."""


def takes_flex(query: Tensor, state: SwaaState) -> bool:
    """Whether FlexAttention has a fused kernel for these new tokens; single ones and a caller's mask are for others."""
    # More than one block of queries; the length of a static cache in a compiled graph is known to the device only.
    if query.shape[2] <= BLOCK or state.user_mask is not None or state.length is None or query.shape[3] < 16:
        return False
    if query.device.type == "cpu":
        return state.backend == "flex_attention"
    return query.is_cuda and HAS_TRITON and not (state.backend == "sdpa" and query.device in _without_flex)


def flex_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tokens, state: SwaaState, rule: Rule, scaling: float
) -> Tensor:
    """The rule's attention, exactly. Shapes as in `blocked_attention`. Raises NotImplementedError on a CPU backward."""
    backward = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    if query.device.type == "cpu" and backward:
        raise NotImplementedError(
            "flex_attention has no backward pass on the CPU; load with attn_implementation='sdpa'"
        )
    keys = keys.to(query.device)
    form, mask = _shared_mask(query, keys, state, rule, backward)
    if torch.compiler.is_compiling():
        inside: Tensor = _call(_options(query, False, backward))(query, key, value, mask, scaling)
        return inside
    kind = _kind(query, key, rule, form, backward)
    try:
        return _fastest(kind, query, key, value, mask, scaling)
    except NotCompiledError as error:
        fall_back("FlexAttention isn't compiled", error, "plain PyTorch does the same")
        return blocked_attention(query, key, value, keys, state, rule, scaling)


def _fastest(kind: Kind, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float) -> Tensor:
    """Through flash-attn-4, where it is installed and can; else through Triton, or on a CPU through PyTorch's own."""
    if kind not in _without_flash and _takes_flash(query):
        try:
            return _run(replace(kind, flash=True, whole=False), query, key, value, mask, scaling)
        except NotCompiledError:
            raise
        except Exception as error:
            # The same mask in Triton; a real error of the caller's comes again there.
            fall_back("flash-attn-4 can't compute this attention", error, "Triton does")
            _without_flash.add(kind)
    return _run(kind, query, key, value, mask, scaling)


def flex_or_blocks(
    query: Tensor, key: Tensor, value: Tensor, keys: Tokens, state: SwaaState, rule: Rule, scaling: float
) -> Tensor:
    """FlexAttention, or the same in plain PyTorch where it can't be compiled, as on a machine without a C compiler."""
    try:
        return flex_attention(query, key, value, keys, state, rule, scaling)
    except Exception as error:
        fall_back("FlexAttention can't run here", error, "plain PyTorch does the same")
        _without_flex.add(query.device)
        return blocked_attention(query, key, value, keys, state, rule, scaling)


def fall_back(what: str, error: Exception, instead: str) -> None:
    """Says that something slower takes over from now on, unless it was memory that failed, which is raised."""
    # Too little memory now says nothing about later calls. A kernel's launch reports it in words of its own.
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower():
        raise error
    message = f"{what} ({_line(error)}): {instead}, more slowly"
    if message not in fallbacks:
        fallbacks.append(message)
        logger.warning(message)


def _run(kind: Kind, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float) -> Tensor:
    with many_variants():
        output: Tensor = _kernel(kind, query)(query, key, value, mask, scaling)
    return output


def many_variants() -> Any:
    """While it lasts the compiler makes 64 variants of a function: past its own limit of 8 it runs what isn't fused."""
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    return torch._dynamo.config.patch({limit: 64})


def _kind(query: Tensor, key: Tensor, rule: Rule, form: Form, backward: bool) -> Kind:
    shape = (query.shape[0], query.shape[2], key.shape[2]) if query.device.type == "cpu" else None
    heads, kv_heads, dim = query.shape[1], key.shape[1], query.shape[3]
    whole = query.is_cuda and query.shape[2] % BLOCK == 0 and key.shape[2] % BLOCK == 0
    return Kind(query.device, rule, form, heads, kv_heads, dim, query.dtype, backward, False, whole, shape)


def _takes_flash(query: Tensor) -> bool:
    """Whether FlexAttention may hand this to flash-attn-4, if that is installed."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    modern = torch.cuda.get_device_capability(query.device)[0] >= 9
    return modern and query.shape[3] in (64, 96, 128) and _has_flash()


@functools.cache
def _has_flash() -> bool:
    """Whether flash-attn-4 is installed: asked once, not in every layer."""
    try:
        return importlib.util.find_spec("flash_attn.cute") is not None
    except ImportError:
        return False


def _shared_mask(query: Tensor, keys: Tokens, state: SwaaState, rule: Rule, backward: bool) -> tuple[Form, Any]:
    """The call's form and BlockMask, made once for all layers that have the same keys."""
    name = state.plan_name("flex", keys, rule, backward)
    if name not in state.plans:
        form = form_of(keys, state, rule)
        state.plans[name] = form, _cached_mask(query, keys, state, rule, form, backward)
    found: tuple[Form, Any] = state.plans[name]
    return found


def _cached_mask(query: Tensor, keys: Tokens, state: SwaaState, rule: Rule, form: Form, backward: bool) -> Any:
    """Prompts of one length, where nothing is padded, packed, cached or dense, have one mask: it is kept."""
    if not form.own_queries or form.dense or backward or torch.compiler.is_compiling():
        return block_mask(query, keys, state, rule, form, backward)
    stream = None
    if query.is_cuda:
        if torch.cuda.is_current_stream_capturing():
            # A graph outlives what is kept here.
            return block_mask(query, keys, state, rule, form, backward)
        # Another stream might read it before it is written.
        stream = torch.cuda.current_stream(query.device).cuda_stream
    lengths = query.shape[2], keys.position.shape[1]
    # What is made in inference mode can't be used outside.
    name = (*lengths, rule, query.device, stream, torch.is_inference_mode_enabled())
    mask = _masks.get(name)
    if mask is None:
        mask = block_mask(query, keys, state, rule, form, backward)
        with _masks_lock:
            while len(_masks) >= KEPT_MASKS:
                del _masks[next(iter(_masks))]
            _masks[name] = mask
    return mask


def _kernel(kind: Kind, query: Tensor) -> Callable[..., Any]:
    """FlexAttention is only fused, and only linear in memory, when compiled."""
    if kind not in _compiled:
        # The compiler remembers by name what varied between calls, and from then on takes windows and heads for
        # variables: kinds that share nothing have names of their own. Where a file lies doesn't tell functions apart,
        # so this module's name does: every converted model that is loaded has a copy of this file.
        options = _options(query, kind.flash, kind.backward)
        function = _call((options or {}) | {"IS_DIVISIBLE": True} if kind.whole else options)
        code = function.__code__.replace(co_name=f"{__name__.replace('.', '_')}_{next(_numbers)}")
        function = types.FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)
        _compiled[kind] = torch.compile(function, dynamic=False if kind.shape else None)
    return _compiled[kind]


def _call(options: Any) -> Callable[..., Any]:
    def swaa_flex(query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float) -> Any:
        if not torch.compiler.is_compiling():
            raise NotCompiledError("torch.compile is switched off")
        return fused(query, key, value, block_mask=mask, scale=scaling, enable_gqa=True, kernel_options=options)

    return swaa_flex


def _options(query: Tensor, flash: bool, backward: bool) -> Any:
    """FlexAttention's kernel options; backward: whether they serve both passes."""
    if flash:
        return {"BACKEND": "FLASH"}
    if not query.is_cuda or query.dtype == torch.float32 or torch.version.cuda is None:
        return None
    dim = query.shape[3]
    if torch.cuda.get_device_capability(query.device) != (9, 0) or dim not in HOPPER:
        return None
    if not backward:
        return dict(HOPPER[dim])
    # Without prefixes, options of the forward pass would hold in the backward pass too, and slow it down.
    later = {f"bwd_{name}": value for name, value in HOPPER_BACKWARD.get(dim, {}).items()}
    return {f"fwd_{name}": value for name, value in HOPPER[dim].items()} | later


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
