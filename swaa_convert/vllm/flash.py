"""Windowed layers through flash-attention: its own window, the sinks in a second call, merged by log-sum-exp; heads and
dense rows in a third. Blocks outside the window are never read.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm import envs
from vllm.utils.torch_utils import canonicalize_singleton_dim_strides
from vllm.v1.attention.backend import AttentionCGSupport, AttentionMetadataBuilder, CommonAttentionMetadata
from vllm.v1.attention.backends.fa_utils import flash_attn_varlen_func, get_flash_attn_version
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend, FlashAttentionImpl
from vllm.v1.attention.ops.merge_attn_states import merge_attn_states

from swaa_convert.vllm.paged import PromptLengths, keep, rule_of
from swaa_convert.vllm.segments import Pieces, cut, whole


@dataclass
class SwaaFlashMetadata:
    """One forward pass, as `Pieces`. `plain_rows`: (tokens,) which outputs come from the plain call."""

    num_actual_tokens: int
    max_query_len: int
    max_seq_len: int
    starts: Tensor
    plain: Tensor
    windowed: Tensor
    sinks: Tensor
    plain_rows: Tensor
    block_table: Tensor
    slot_mapping: Tensor
    num_splits: int
    window_splits: int


class SwaaFlashBuilder(AttentionMetadataBuilder[SwaaFlashMetadata]):
    _cudagraph_support = AttentionCGSupport.UNIFORM_SINGLE_TOKEN_DECODE
    supports_update_block_table = False

    def __init__(self, kv_cache_spec: Any, layer_names: list[str], vllm_config: Any, device: torch.device) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        layer = rule_of(layer_names, vllm_config)
        self.rule, self.fa_tail = layer.rule, layer.fa_tail
        self.prompts = PromptLengths(vllm_config, device)
        requests, tokens = (
            getattr(vllm_config.scheduler_config, name) for name in ("max_num_seqs", "max_num_batched_tokens")
        )
        self.keys = torch.zeros(3, requests, dtype=torch.int32, device=device)
        self.rows = torch.zeros(max(requests, tokens), dtype=torch.bool, device=device)
        graphs = vllm_config.compilation_config
        self.invariant = envs.VLLM_BATCH_INVARIANT
        full = graphs.cudagraph_mode.has_full_cudagraphs() and get_flash_attn_version() == 3
        # A graph needs a bound on how a query's keys are split; elsewhere (0) the kernel chooses.
        self.num_splits = vllm_config.attention_config.flash_attn_max_num_splits_for_cuda_graph if full else 0
        self.longest_graph = graphs.max_cudagraph_capture_size or 0

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> SwaaFlashMetadata:
        common = common_attn_metadata
        single = common.max_query_len == 1
        pieces = (whole if single else cut)(self.prompts.take(common), self.rule, self.fa_tail)
        parts = [pieces.plain, pieces.windowed, pieces.sinks(self.rule.keep_first)]
        rows = pieces.plain_rows(common.num_actual_tokens)
        if single:
            # What a graph of single queries reads must stay where it was.
            parts = [keep(buffer, part) for buffer, part in zip(self.keys, parts, strict=True)]
            rows = keep(self.rows, rows)
        splits = self.num_splits if single and common.num_actual_tokens <= self.longest_graph else 0
        if self.invariant:
            # How a query's keys are split must not depend on the batch.
            splits = 1
        return SwaaFlashMetadata(
            num_actual_tokens=common.num_actual_tokens,
            max_query_len=common.max_query_len,
            max_seq_len=common.max_seq_len,
            starts=pieces.starts,
            plain=parts[0],
            windowed=parts[1],
            sinks=parts[2],
            plain_rows=rows[:, None, None],
            block_table=_tables(common, pieces),
            slot_mapping=common.slot_mapping,
            num_splits=splits,
            # One query leaves most of a GPU idle; a prompt's fill it, and splitting them would only take memory.
            window_splits=splits if single else 1,
        )

    def use_cascade_attention(self, *args: Any, **kwargs: Any) -> bool:
        return False


def _tables(common: CommonAttentionMetadata, pieces: Pieces) -> Tensor:
    tables: Tensor = common.block_table_tensor[: common.num_reqs]
    return tables if pieces.per == 1 else tables.repeat_interleave(pieces.per, dim=0)


class SwaaFlashImpl(FlashAttentionImpl):
    """Attention of one windowed layer. The cache is written by the stock class."""

    swaa: Any

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: SwaaFlashMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """query, output: (tokens, heads, head_size)."""
        if attn_metadata is None:
            # vLLM measures memory in this pass: as much as the others need for the parts that they merge.
            parts = [torch.empty_like(output) for _ in range(4)]
            del parts
            return output.fill_(0)
        if output_scale is not None or output_block_scale is not None:
            raise NotImplementedError("SWAA's attention has no fused output quantization")
        meta, rule = attn_metadata, self.swaa.rule
        rows = meta.num_actual_tokens
        paged = kv_cache.transpose(1, 2)
        keys = canonicalize_singleton_dim_strides(paged[..., : self.head_size])
        values = canonicalize_singleton_dim_strides(paged[..., self.head_size :])
        call = (query[:rows], keys, values, meta)
        plain, _ = self._call(*call, meta.plain, meta.max_seq_len, num_splits=meta.num_splits)
        # The kernel counts the keys before the query's own.
        inside = [rule.window - 1, 0]
        merged, lse = self._call(*call, meta.windowed, meta.max_seq_len, True, inside, meta.window_splits)
        if rule.keep_first:
            sinks, sinks_lse = self._call(*call, meta.sinks, rule.keep_first, causal=False)
            window, merged = merged, torch.empty_like(merged)
            merge_attn_states(merged, sinks, sinks_lse, window, lse)
        torch.where(meta.plain_rows, plain, merged, out=output[:rows])
        return output

    def _call(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        meta: SwaaFlashMetadata,
        keys: Tensor,
        longest: int,
        causal: bool = True,
        window: list[int] | None = None,
        num_splits: int = 1,
    ) -> Any:
        """Output (tokens, heads, head_size) and log-sum-exp (heads, tokens). Pieces without keys give nothing."""
        return flash_attn_varlen_func(
            q=query,
            k=key,
            v=value,
            cu_seqlens_q=meta.starts,
            max_seqlen_q=meta.max_query_len,
            seqused_k=keys,
            max_seqlen_k=longest,
            softmax_scale=self.scale,
            causal=causal,
            window_size=window,
            block_table=meta.block_table,
            return_softmax_lse=True,
            num_splits=num_splits,
            fa_version=self.vllm_flash_attn_version,
        )


class SwaaFlashBackend(FlashAttentionBackend):
    @staticmethod
    def get_impl_cls() -> type[SwaaFlashImpl]:
        return SwaaFlashImpl

    @staticmethod
    def get_builder_cls() -> type[SwaaFlashBuilder]:
        return SwaaFlashBuilder
