"""The FLASH_ATTN backend in a real engine, with its CUDA kernels written out in PyTorch, and in CUDA graphs' order."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.embed import Zoo
from tests.vllm.engine import Served, engine, greedy, mixed
from tests.vllm.flash_kernels import flash_attention
from tests.vllm.test_recipes import RECIPES, next_turns

CHOSEN = ("FA decode", "no FA decode", "FA decode in some layers", "dense tail past a prompt", "no sinks, no FA decode")


@pytest.fixture(autouse=True)
def kernels() -> Iterator[None]:
    with flash_attention():
        yield


@pytest.mark.parametrize("recipe", CHOSEN)
def test_tokens(zoo: Zoo, recipe: str) -> None:
    """In a pool in which requests are preempted, then as the next turns."""
    served = Served(zoo, **RECIPES[recipe])
    with engine(served.repo, num_gpu_blocks_override=70, max_num_batched_tokens=64) as llm:
        layers = llm.llm_engine.vllm_config.compilation_config.static_forward_context.values()
        assert {"FLASH_ATTN"} == {layer.attn_backend.get_name() for layer in layers}
        first = greedy(llm, mixed(2) + mixed(3), 24)
        served.check(first)
        for _ in range(2):
            served.check(greedy(llm, next_turns(first), 4))


def test_other_versions_are_refused(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only version 3 has been seen to be right."""
    from vllm.v1.attention.backends import flash_attn

    monkeypatch.setattr(flash_attn, "get_flash_attn_version", lambda *args, **kwargs: 2)
    with pytest.raises(ValueError, match="flash-attention 2: start vLLM with --attention-backend TRITON_ATTN"):
        with engine(Served(zoo).repo):
            pass


@pytest.mark.parametrize(
    "version, given, chosen", [(3, None, None), (2, None, "TRITON"), (4, None, "TRITON"), (2, 1, 1)]
)
def test_a_gpu_without_version_3_runs_triton(
    monkeypatch: pytest.MonkeyPatch, version: int, given: Any, chosen: Any
) -> None:
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends import fa_utils
    from vllm.v1.attention.backends.registry import AttentionBackendEnum

    from swaa_convert.vllm.backends import choose_backend

    monkeypatch.setattr(type(current_platform), "is_cuda", lambda self: True)
    monkeypatch.setattr(fa_utils, "get_flash_attn_version", lambda head_size: version)
    attention = SimpleNamespace(backend=given)
    choose_backend(SimpleNamespace(attention_config=attention, model_config=SimpleNamespace(get_head_size=lambda: 128)))
    assert attention.backend == (AttentionBackendEnum.TRITON_ATTN if chosen == "TRITON" else chosen)


@pytest.mark.parametrize("fa_decode", [True, False])
def test_a_graphs_metadata_follows_the_batch(fa_decode: bool) -> None:
    """A decode graph keeps the metadata that it was captured with: all that it reads must be there at replay.

    Eight rows, of which two are padding at replay, whose prompt lengths vLLM then leaves out.
    """
    from swaa_convert.vllm.flash import SwaaFlashBuilder

    builder = SwaaFlashBuilder(None, ["layer"], _vllm_config(fa_decode), torch.device("cpu"))
    batch = _Batch()
    captured = builder.build_for_cudagraph_capture(batch.common(None))
    lengths = torch.tensor([3, 48, 53, 54, 60, 300, 0, 0], dtype=torch.int32)
    batch.fill(lengths)
    replayed = builder.build(0, batch.common(torch.tensor([8, 20, 60, 54, 59, 200], dtype=torch.int32)))
    assert captured.num_splits == replayed.num_splits == captured.window_splits == replayed.window_splits == 32
    for name in ("starts", "plain", "windowed", "sinks", "plain_rows", "block_table", "slot_mapping"):
        kept, new = getattr(captured, name), getattr(replayed, name)
        assert kept.data_ptr() == new.data_ptr() and kept.shape == new.shape, name
    # The first 53 see everything, and with FA decode so does what was generated.
    dense = torch.tensor([True, True, True, False, fa_decode, fa_decode, True, True])
    assert torch.equal(captured.plain_rows[:6, 0, 0], dense[:6])
    assert torch.equal(captured.plain, torch.where(dense, lengths, 0))
    assert torch.equal(captured.windowed, torch.where(dense, 0, lengths))
    assert torch.equal(captured.sinks, torch.where(dense, 0, 5))


class _Batch:
    """Decode rows in the buffers of a model runner."""

    def __init__(self, rows: int = 8) -> None:
        self.starts = torch.arange(rows + 1, dtype=torch.int32)
        self.lengths = torch.full((rows,), 512, dtype=torch.int32)
        self.table = torch.zeros(rows, 16, dtype=torch.int32)
        self.slots = torch.full((rows,), -1)

    def fill(self, lengths: torch.Tensor) -> None:
        """Rows without tokens come last."""
        self.lengths.copy_(lengths)
        self.starts.copy_(torch.cat([torch.zeros(1), (lengths > 0).cumsum(0)]))

    def common(self, prompts: torch.Tensor | None) -> Any:
        from vllm.v1.attention.backend import CommonAttentionMetadata

        rows = len(self.lengths)
        return CommonAttentionMetadata(
            query_start_loc=self.starts,
            query_start_loc_cpu=self.starts,
            seq_lens=self.lengths,
            num_reqs=rows,
            num_actual_tokens=rows,
            max_query_len=1,
            max_seq_len=512,
            block_table_tensor=self.table,
            slot_mapping=self.slots,
            rswa_prefix_lens=prompts,
        )


def _vllm_config(fa_decode: bool) -> Any:
    """Of an engine with full graphs for decode batches of up to 8."""
    from swaa_convert.vllm.shipped.swaa_mask import Rule

    from swaa_convert.vllm.layers import LayerRule

    layer = SimpleNamespace(swaa=LayerRule(Rule(48, 5, fa_decode), 0, not fa_decode))
    graphs = SimpleNamespace(has_full_cudagraphs=lambda: True)
    return SimpleNamespace(
        compilation_config=SimpleNamespace(
            static_forward_context={"layer": layer}, cudagraph_mode=graphs, max_cudagraph_capture_size=8
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=8, max_num_batched_tokens=64),
        model_config=SimpleNamespace(rswa_window=2**30),
        attention_config=SimpleNamespace(flash_attn_max_num_splits_for_cuda_graph=32),
    )
