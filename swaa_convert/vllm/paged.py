"""What the metadata builders of both CUDA backends share."""

from typing import Any

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.v1.attention.backend import CommonAttentionMetadata

from swaa_convert.vllm.segments import Queries


def rule_of(layer_names: list[str], vllm_config: VllmConfig) -> Any:
    """The `LayerRule` that all layers of one builder have."""
    layers = vllm_config.compilation_config.static_forward_context
    rules = {layers[name].swaa for name in layer_names}
    if len(rules) != 1:
        raise RuntimeError(f"vLLM gave layers of {len(rules)} different SWAA rules one builder: update swaa-convert")
    return rules.pop()


class PromptLengths:
    """Each request's prompt length on the device, at an address that CUDA graphs can keep."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        if vllm_config.model_config.rswa_window is None:
            raise RuntimeError("vLLM passes no prompt lengths, without which SWAA can't be right: update swaa-convert")
        self.buffer = torch.zeros(vllm_config.scheduler_config.max_num_seqs, dtype=torch.int32, device=device)

    def take(self, common: CommonAttentionMetadata) -> Queries:
        """The batch's queries. Batches that only warm the engine up have no prompt lengths."""
        count, given = common.num_reqs, common.rswa_prefix_lens
        if given is not None:
            known = min(count, given.shape[0])
            self.buffer[:known].copy_(given[:known], non_blocking=True)
        return Queries(common.query_start_loc[: count + 1], common.seq_lens[:count], self.buffer[:count])


def keep(buffer: Tensor, values: Tensor) -> Tensor:
    """`values` at the buffer's address."""
    kept = buffer[: values.shape[0]]
    kept.copy_(values)
    return kept
