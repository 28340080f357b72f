"""Which attention backend computes a layer, given the one that vLLM chose for it."""

import functools
from dataclasses import replace
from typing import Any

from swaa_convert.vllm.refusals import FLASH_VERSION


def choose_backend(vllm_config: Any) -> None:
    """vLLM's Triton kernel for every layer, where vLLM would choose one that SWAA has nothing for on this GPU.

    To be called before a model's layers are made. What the user chose stays.
    """
    from vllm.logger import init_logger
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.fa_utils import get_flash_attn_version
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    attention = vllm_config.attention_config
    if attention.backend is not None or not current_platform.is_cuda():
        return
    version = get_flash_attn_version(head_size=vllm_config.model_config.get_head_size())
    if version != FLASH_VERSION:
        attention.backend = AttentionBackendEnum.TRITON_ATTN
        # Of loggers, vLLM shows its own and those below.
        init_logger(f"vllm.{__name__}").info("SWAA: TRITON_ATTN for all layers, since flash-attention 3 can't run here")


@functools.cache
def windowed_backend(chosen: type[Any], fa_decode: bool) -> type[Any]:
    """Our backend for windowed layers. Raises ValueError where there is none.

    vLLM builds metadata once for all layers of one backend that keep the same; a class for each rule separates them.
    """
    ours = _ours(chosen.get_name())
    return type(f"{ours.__name__}{'FaDecode' if fa_decode else 'Windowed'}", (ours,), {})


def _ours(name: str) -> type[Any]:
    if name == "CPU_ATTN":
        from swaa_convert.vllm.cpu import SwaaCpuBackend

        return SwaaCpuBackend
    if name == "FLASH_ATTN":
        from swaa_convert.vllm.flash import SwaaFlashBackend

        return SwaaFlashBackend
    if name == "TRITON_ATTN":
        from swaa_convert.vllm.triton import SwaaTritonBackend

        return SwaaTritonBackend
    raise ValueError(f"SWAA has no kernel for {name}: start vLLM with --attention-backend TRITON_ATTN")


@functools.cache
def full_backend(chosen: Any) -> type[Any]:
    """The chosen backend, which doesn't see prompt lengths: it would take them for R-SWA's and run a slower kernel."""
    stock: Any = chosen.get_builder_cls()

    class FullBuilder(stock):
        # Metadata of a windowed group's builder must not be taken over.
        supports_update_block_table = False

        def build(self, common_prefix_len: int, common_attn_metadata: Any, *args: Any, **kwargs: Any) -> Any:
            plain = replace(common_attn_metadata, rswa_prefix_lens=None)
            return super().build(common_prefix_len, plain, *args, **kwargs)

    class FullBackend(chosen):
        @staticmethod
        def get_builder_cls() -> type[Any]:
            return FullBuilder

    return FullBackend
