"""Phi3 with sliding window attention adaptation (SWAA, arXiv 2512.10411), embedded by swaa-convert."""

from typing import Any

import torch
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM, Phi3Model
from transformers.generation import GenerationMixin

# transformers copies and loads only the files that this one imports itself, so all of them are named here.
from .swaa_attention import swaa_attention  # noqa: F401
from .swaa_block_mask import block_mask  # noqa: F401
from .swaa_blocks import blocked_attention  # noqa: F401
from .swaa_cache import CACHE, cache_in
from .swaa_config import SwaaConfigMixin
from .swaa_flash import two_pass_attention  # noqa: F401
from .swaa_flex import flex_attention  # noqa: F401
from .swaa_generation import SwaaGenerationMixin, prompt_length
from .swaa_growing import GrowingLayer  # noqa: F401
from .swaa_mask import Rule  # noqa: F401
from .swaa_model import SwaaModelMixin
from .swaa_refusals import refuse_crossing
from .swaa_rope import older_rope  # noqa: F401
from .swaa_settings import SwaaSettings  # noqa: F401
from .swaa_state import SwaaState  # noqa: F401


class SwaaPhi3Config(SwaaConfigMixin, Phi3Config):
    model_type = "swaa_phi3"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class SwaaPhi3Model(SwaaModelMixin, Phi3Model):
    config_class = SwaaPhi3Config


class GenericInputs:
    """Inputs as other families have them: in versions from 5.0 on Phi-3's own may lose all but the newest token."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        return GenerationMixin.prepare_inputs_for_generation(self, *args, **kwargs)


class SwaaPhi3ForCausalLM(SwaaGenerationMixin, GenericInputs, Phi3ForCausalLM, GenerationMixin):
    config_class = SwaaPhi3Config
    base_model_class = SwaaPhi3Model

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in other families; refused where tokens would be computed with two kinds of LongRoPE's factors."""
        if _is_long(self.config):
            length = self.config.original_max_position_embeddings
            refuse_crossing(self, prompt_length(inputs, kwargs), length, args, kwargs)
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The usual inputs, but all tokens without a cache where LongRoPE gets other factors for all of them."""
        cache, length = cache_in(kwargs), self.config.original_max_position_embeddings
        if cache is not None and input_ids.shape[1] > length and _is_long(self.config):
            if 0 < int(cache.get_seq_length()) <= length:
                kwargs |= {CACHE: None} | _all_tokens(input_ids, kwargs)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        return inputs


def _is_long(config: Any) -> bool:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return bool(rope.get("rope_type", rope.get("type")) == "longrope")


def _all_tokens(input_ids: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What says, in one version or another, which tokens are new: all of them."""
    found: dict[str, Any] = {"next_sequence_length": None} if "next_sequence_length" in kwargs else {}
    if kwargs.get("cache_position") is not None:
        found["cache_position"] = torch.arange(input_ids.shape[1], device=input_ids.device)
    positions = kwargs.get("position_ids")
    if positions is not None and positions.shape[1] < input_ids.shape[1]:
        # Those of the newest token; they are then counted from the mask.
        found["position_ids"] = None
    return found
