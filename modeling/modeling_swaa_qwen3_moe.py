"""Qwen3Moe with sliding window attention adaptation (SWAA, arXiv 2512.10411), embedded by swaa-convert."""

from typing import Any

from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM, Qwen3MoeModel
from transformers.generation import GenerationMixin

# transformers copies and loads only the files that this one imports itself, so all of them are named here.
from .swaa_attention import swaa_attention  # noqa: F401
from .swaa_block_mask import block_mask  # noqa: F401
from .swaa_blocks import blocked_attention  # noqa: F401
from .swaa_cache import SinkWindowLayer  # noqa: F401
from .swaa_config import SwaaConfigMixin
from .swaa_flash import two_pass_attention  # noqa: F401
from .swaa_flex import flex_attention  # noqa: F401
from .swaa_generation import SwaaGenerationMixin
from .swaa_growing import GrowingLayer  # noqa: F401
from .swaa_mask import Rule  # noqa: F401
from .swaa_model import SwaaModelMixin
from .swaa_refusals import refuse_broken  # noqa: F401
from .swaa_rope import older_rope  # noqa: F401
from .swaa_settings import SwaaSettings  # noqa: F401
from .swaa_state import SwaaState  # noqa: F401


class SwaaQwen3MoeConfig(SwaaConfigMixin, Qwen3MoeConfig):
    model_type = "swaa_qwen3_moe"

    def __init__(self, **kwargs: Any) -> None:
        # Newer versions save this name only; older ones don't know it and would silently take 128 experts.
        if "num_local_experts" in kwargs:
            kwargs.setdefault("num_experts", kwargs["num_local_experts"])
        super().__init__(**kwargs)


class StockExperts:
    """Experts run as in the stock model: transformers decides by reading the source of the class it is asked about."""

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return bool(Qwen3MoeForCausalLM._can_set_experts_implementation())


class SwaaQwen3MoeModel(StockExperts, SwaaModelMixin, Qwen3MoeModel):
    config_class = SwaaQwen3MoeConfig


class SwaaQwen3MoeForCausalLM(StockExperts, SwaaGenerationMixin, Qwen3MoeForCausalLM, GenerationMixin):
    config_class = SwaaQwen3MoeConfig
    base_model_class = SwaaQwen3MoeModel


try:  # Versions from 5 on keep the experts fused, and load them through a mapping that is found by model_type.
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )
except ImportError:
    pass
else:
    register_checkpoint_conversion_mapping(
        SwaaQwen3MoeConfig.model_type, get_checkpoint_conversion_mapping("qwen3_moe"), overwrite=True
    )
