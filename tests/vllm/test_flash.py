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
        served.check(greedy(llm, next_turns(first), 4))


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
    prompts = torch.tensor([8, 20, 60, 54, 59, 300], dtype=torch.int32)
    batch.fill(lengths)
    replayed = builder.build(0, batch.common(prompts))
    assert captured.num_splits == replayed.num_splits == 32
    for name in ("starts", "plain", "windowed", "sinks", "plain_rows", "block_table", "slot_mapping"):
        assert getattr(captured, name).data_ptr() == getattr(replayed, name).data_ptr(), name
        assert getattr(captured, name).shape == getattr(replayed, name).shape, name
    # Heads see everything, and with FA decode so does what was generated.
    plain = [True, True, True, fa_decode, fa_decode, fa_decode]
    plain[3] = False
    assert captured.plain_rows[:6, 0, 0].tolist() == plain
    assert captured.windowed[:6].tolist() == [0 if dense else n for dense, n in zip(plain, lengths.tolist(), strict=False)]
