"""Phi3 with sliding window attention adaptation (SWAA, arXiv 2512.10411), embedded by swaa-convert."""

from typing import Any

from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM, Phi3Model
from transformers.generation import GenerationMixin

# transformers copies and loads only the files that this one imports itself, so all of them are named here.
from .swaa_attention import swaa_attention  # noqa: F401
from .swaa_block_mask import block_mask  # noqa: F401
from .swaa_blocks import blocked_attention  # noqa: F401
from .swaa_cache import cache_in
from .swaa_config import SwaaConfigMixin
from .swaa_flash import two_pass_attention  # noqa: F401
from .swaa_flex import flex_attention  # noqa: F401
from .swaa_generation import SwaaGenerationMixin
from .swaa_mask import Rule  # noqa: F401
from .swaa_model import SwaaModelMixin
from .swaa_refusals import refuse_broken  # noqa: F401
from .swaa_rope import older_rope  # noqa: F401
from .swaa_settings import SwaaSettings  # noqa: F401
from .swaa_state import SwaaState  # noqa: F401


class SwaaPhi3Config(SwaaConfigMixin, Phi3Config):
    model_type = "swaa_phi3"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class SwaaPhi3Model(SwaaModelMixin, Phi3Model):
    config_class = SwaaPhi3Config


class SwaaPhi3ForCausalLM(SwaaGenerationMixin, Phi3ForCausalLM, GenerationMixin):
    config_class = SwaaPhi3Config
    base_model_class = SwaaPhi3Model

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, inputs_embeds: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The stock inputs. At a certain length the stock class drops the cache, because RoPE's factors change."""
        cache, length = cache_in(kwargs), self.config.original_max_position_embeddings
        begins_anew = cache is not None and int(cache.get_seq_length()) <= length < input_ids.shape[1]
        if begins_anew and "next_sequence_length" in kwargs:
            # Versions before 5.24 would then go on from the newest token alone.
            kwargs["next_sequence_length"] = None
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        return inputs
