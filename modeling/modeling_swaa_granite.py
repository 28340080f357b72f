"""Granite with sliding window attention adaptation (SWAA, arXiv 2512.10411), embedded by swaa-convert."""

from typing import Any

from transformers import GraniteConfig, GraniteForCausalLM, GraniteModel
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


class SwaaGraniteConfig(SwaaConfigMixin, GraniteConfig):
    model_type = "swaa_granite"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class SwaaGraniteModel(SwaaModelMixin, GraniteModel):
    config_class = SwaaGraniteConfig


class SwaaGraniteForCausalLM(SwaaGenerationMixin, GraniteForCausalLM, GenerationMixin):
    config_class = SwaaGraniteConfig
    base_model_class = SwaaGraniteModel
