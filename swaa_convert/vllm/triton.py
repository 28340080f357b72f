"""Windowed layers through vLLM's Triton kernel, whose R-SWA mask `k < prefix | q - k < window` is the rule of SWAA with
the sinks for a prefix, and no limit to it in dense rows. Exact; blocks outside the window are computed and masked.
"""

from typing import Any

import torch
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionMetadata,
    TritonAttentionMetadataBuilder,
)

from swaa_convert.vllm.paged import PromptLengths, rule_of
from swaa_convert.vllm.segments import halves, prefix_of_one


class SwaaTritonBuilder(TritonAttentionMetadataBuilder):
    # A graph of single queries finds their kind in its data; longer ones may have to be cut in two.
    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    supports_update_block_table = False

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        layer = rule_of(layer_names, vllm_config)
        self.rule, self.fa_tail = layer.rule, layer.fa_tail
        self.prompts = PromptLengths(vllm_config, device)
        self.rswa_window = self.rule.window
        requests = vllm_config.scheduler_config.max_num_seqs
        self.persistent_rswa_prefix_lens = torch.zeros(2 * requests, dtype=torch.int32, device=device)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> TritonAttentionMetadata:
        return super().build(0, self._ruled(common_attn_metadata), fast_build)

    def _ruled(self, common: CommonAttentionMetadata) -> CommonAttentionMetadata:
        queries = self.prompts.take(common)
        if common.max_query_len == 1:
            prefix = prefix_of_one(queries, self.rule, self.fa_tail)
            return common.replace(rswa_prefix_lens=prefix)
        starts, keys, prefix = halves(queries, self.rule, self.fa_tail)
        return common.replace(
            query_start_loc=starts,
            seq_lens=keys,
            num_reqs=len(keys),
            block_table_tensor=common.block_table_tensor[: common.num_reqs].repeat_interleave(2, dim=0),
            rswa_prefix_lens=prefix,
        )

    def use_cascade_attention(self, *args: Any, **kwargs: Any) -> bool:
        return False


class SwaaTritonBackend(TritonAttentionBackend):
    @staticmethod
    def get_builder_cls() -> type[SwaaTritonBuilder]:
        return SwaaTritonBuilder
