"""Windowed layers on a CPU: each query block against the sinks and its window, in plain PyTorch.

The KV cache has a layout of its own, since the one of vLLM's CPU kernels differs between instruction sets:
(blocks, kv_heads, block_size, 2 * head_size), keys first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from vllm.v1.attention.backend import AttentionMetadataBuilder, CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

from swaa_convert.vllm.shipped.swaa_mask import Rule, attends

# Queries at once; more of them see more keys that the mask then hides.
_QUERIES = 256


@dataclass
class Part:
    """Consecutive queries of one request, all dense or none.

    rows: where they stand in the batch; first: the position of the first one.
    blocks: the request's block table.
    """

    rows: slice
    first: int
    dense: bool
    blocks: Tensor

    @property
    def end(self) -> int:
        return self.first + int(self.rows.stop - self.rows.start)


@dataclass
class SwaaCpuMetadata:
    """One forward pass. `slot_mapping` says where new keys go: block * block_size + offset, negative for padding."""

    requests: list[tuple[slice, int, int, Tensor]]
    slot_mapping: Tensor

    def parts(self, rule: Rule, fa_tail: int) -> Iterator[Part]:
        """The batch, cut at the requests' first dense positions and into blocks of queries."""
        for rows, first, prompt, blocks in self.requests:
            end = first + rows.stop - rows.start
            dense_from = max(0, prompt - fa_tail) if rule.fa_decode else end
            middle = min(max(first, dense_from), end)
            for start, stop, dense in ((first, middle, False), (middle, end, True)):
                for begin in range(start, stop, _QUERIES):
                    row = rows.start + begin - first
                    yield Part(slice(row, row + min(_QUERIES, stop - begin)), begin, dense, blocks)


class SwaaCpuBuilder(AttentionMetadataBuilder[SwaaCpuMetadata]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> SwaaCpuMetadata:
        common = common_attn_metadata
        if common.rswa_prefix_lens is None:
            raise RuntimeError("vLLM passed no prompt lengths, without which SWAA can't be right: update swaa-convert")
        starts, lengths = common.query_start_loc_cpu.tolist(), common.seq_lens.tolist()
        prompts = common.rswa_prefix_lens.tolist()
        requests = [
            (slice(start, end), lengths[i] - (end - start), prompts[i], common.block_table_tensor[i])
            for i, (start, end) in enumerate(zip(starts[:-1], starts[1:], strict=True))
            if end > start
        ]
        return SwaaCpuMetadata(requests, common.slot_mapping)


class SwaaCpuImpl(CPUAttentionBackendImpl):
    """Attention of one windowed layer."""

    swaa: Any

    def do_kv_cache_update(
        self, layer: Any, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        size = kv_cache.shape[2]
        real = slot_mapping >= 0
        slots = slot_mapping[real]
        new = torch.cat([key[: len(real)][real], value[: len(real)][real]], dim=-1)
        kv_cache[slots // size, :, slots % size] = new.to(kv_cache.dtype)

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        kv_cache: Tensor,
        attn_metadata: SwaaCpuMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """query, output: (tokens, heads, head_size); the new keys are in the cache already."""
        if attn_metadata is None:
            return output.zero_()
        rule, fa_tail = self.swaa.rule, self.swaa.fa_tail
        for part in attn_metadata.parts(rule, fa_tail):
            output[part.rows] = self._part(query[part.rows], part, rule, kv_cache)
        return output

    def _part(self, query: Tensor, part: Part, rule: Rule, kv_cache: Tensor) -> Tensor:
        """(queries, heads, head_size) of one part."""
        keys = _seen(part, rule)
        size = kv_cache.shape[2]
        cached = kv_cache[part.blocks[keys // size].long(), :, keys % size]
        key, value = cached.to(query.dtype).transpose(0, 1)[None].chunk(2, dim=-1)
        queries = torch.arange(part.first, part.end)
        dense = torch.tensor(part.dense)
        mask = attends(queries[:, None], keys[None], dense, rule, padding=False)
        found = scaled_dot_product_attention(
            query.transpose(0, 1)[None], key, value, attn_mask=mask, scale=self.scale, enable_gqa=True
        )
        return found[0].transpose(0, 1)


def _seen(part: Part, rule: Rule) -> Tensor:
    """The positions that any query of the part may see."""
    if part.dense:
        return torch.arange(part.end)
    window = max(0, part.first - rule.window + 1)
    return torch.cat([torch.arange(min(rule.keep_first, window)), torch.arange(window, part.end)])


class SwaaCpuBackend(CPUAttentionBackend):
    @staticmethod
    def get_impl_cls() -> type[SwaaCpuImpl]:
        return SwaaCpuImpl

    @staticmethod
    def get_builder_cls() -> type[SwaaCpuBuilder]:
        return SwaaCpuBuilder
