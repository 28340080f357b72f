"""Shares of time, on made-up events and on a real run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from swaa_convert.bench.compare import compare
from swaa_convert.bench.profile import Span, _spans, marked, profiled, shares
from swaa_convert.errors import SwaaError
from tests.bench.conftest import Make, settings

ATTENTION, LINEAR = "swaa_bench_attention", "swaa_bench_linear"


def test_work_belongs_to_the_innermost_mark_around_it() -> None:
    work = [Span("gemm", 0, 10), Span("gemm", 10, 20), Span("softmax", 20, 30), Span("add", 40, 50)]
    marks = [Span(LINEAR, 9, 21), Span(ATTENTION, 8, 31)]
    found = shares(work, marks, wall=100)
    assert found == pytest.approx({"attention": 0.1, "linear": 0.2, "other": 0.1, "idle": 0.6})


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", "linear"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "linear"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop>", "linear"),
        ("gemv2T_kernel_val", "linear"),
        ("aten::addmm", "linear"),
        ("void at::native::vectorized_elementwise_kernel", "other"),
        ("Memcpy DtoD (Device -> Device)", "other"),
    ],
)
def test_kernels_outside_of_marks_go_by_their_names(kernel: str, kind: str) -> None:
    assert shares([Span(kernel, 0, 1)], [], wall=1)[kind] == 1


def test_on_a_gpu_kernels_count_and_marks_are_those_laid_over_them() -> None:
    def event(name: str, device: str, start: float, end: float) -> Any:
        times, note = SimpleNamespace(start=start, end=end), name.startswith("swaa") or name == "## Call"
        where = SimpleNamespace(name=device)
        return SimpleNamespace(name=name, device_type=where, time_range=times, cpu_parent=None, is_user_annotation=note)

    on_cpu = [event(ATTENTION, "CPU", 0, 1), event("aten::mm", "CPU", 0, 50)]
    on_gpu = [event(ATTENTION, "CUDA", 60, 80), event("## Call", "CUDA", 0, 90), event("gemm", "CUDA", 60, 80)]
    assert _spans(on_cpu + on_gpu, torch.device("cuda")) == ([Span("gemm", 60, 80)], [Span(ATTENTION, 60, 80)])
    assert _spans(on_cpu, torch.device("cpu")) == ([Span("aten::mm", 0, 50)], [Span(ATTENTION, 0, 1)])
    with pytest.raises(SwaaError, match="sees no kernels"):
        _spans(on_cpu, torch.device("cuda"))


def test_overlapping_work_counts_once_and_shares_add_up() -> None:
    found = shares([Span("gemm", 0, 10), Span("flash", 0, 10), Span("add", 5, 10)], [], wall=5)
    assert found["idle"] == 0 and sum(found.values()) == pytest.approx(1)
    assert shares([], [], wall=0) == {"attention": 0, "linear": 0, "other": 0, "idle": 1}


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_both_phases_of_a_real_run(backend: str, qwen3_source: Path, make: Make) -> None:
    made = settings(backend=backend)
    before = {name: ALL_ATTENTION_FUNCTIONS[name] for name in ALL_ATTENTION_FUNCTIONS}
    rivals = make(qwen3_source, backend=backend)
    for contestant, cell in zip(rivals, compare(rivals, 24, made, lambda: None), strict=True):
        phases = profiled(contestant, cell, made)
        assert [found.phase for found in phases] == ["prefill", "decode"]
        for found in phases:
            assert sum(found.shares.values()) == pytest.approx(1)
            assert found.shares["attention"] > 0 and found.shares["linear"] > 0
        # Some runs had finished, but there is no room for another.
        cell.out_of_memory = True
        assert profiled(contestant, cell, made) == []
    assert {name: ALL_ATTENTION_FUNCTIONS[name] for name in before} == before


def test_marks_are_gone_afterwards(qwen3_source: Path, make: Make) -> None:
    model = make(qwen3_source)[-1].model
    with marked(model):
        assert any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
