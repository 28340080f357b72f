"""Experts that transformers fuses in memory are merged a few at a time, with the bits that peft's whole stack gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from swaa_convert.merge import merger, peft_merge
from tests.merge.conftest import MOE_IS_BROKEN
from tests.merge.test_same_bits import BF16, check, merged
from tests.support.adapters import FUSES, QV, make_adapter, stored
from tests.support.sources import make_source, write_json

pytestmark = [
    pytest.mark.skipif(not FUSES, reason="before version 5, transformers fuses no experts"),
    pytest.mark.skipif(MOE_IS_BROKEN, reason="this transformers cannot load MoE adapters with peft"),
]
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "both": {"target_parameters": BOTH},
    "rslora": {"target_parameters": BOTH, "use_rslora": True, "r": 16, "lora_alpha": 32},
    "rank_1": {"target_parameters": BOTH, "r": 1},
    "patterns": {
        "target_parameters": BOTH,
        "rank_pattern": {"experts.down_proj": 2},
        "alpha_pattern": {".*up_proj": 9},
    },
    "one_of_two": {"target_parameters": BOTH[1:]},
    "some_layers": {"target_parameters": BOTH, "layers_to_transform": [1]},
    "with_others": {"target_parameters": BOTH, "target_modules": QV, "modules_to_save": ["lm_head"]},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many experts each merge takes; they come two at a time."""
    found: list[int] = []

    def counted(model: Any, stack: Any, chosen: list[int], *rest: Any) -> Any:
        found.append(len(chosen))
        return peft_merge.merge_experts(model, stack, chosen, *rest)

    monkeypatch.setattr(merger, "_BATCH", 1)
    monkeypatch.setattr(merger, "merge_experts", counted)
    return found


def moe(path: Path, dtype: torch.dtype = BF16, **config: Any) -> Path:
    return make_source(path, "qwen3_moe", dtype=dtype, **{"num_experts": 11, "num_hidden_layers": 2, **config})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str, calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source", shards=3)
    check(source, [make_adapter(source, tmp_path / "adapter", **{"target_modules": [], **KINDS[kind]})], tmp_path)
    assert set(calls) == {2}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes(dtype: torch.dtype, calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source", dtype)
    check(source, [make_adapter(source, tmp_path / "a", target_modules=[], target_parameters=BOTH)], tmp_path, dtype)
    assert set(calls) == {2}


def test_one_after_the_other(calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source")
    kinds = ({"target_parameters": BOTH}, {"target_parameters": BOTH[:1], "r": 8})
    check(
        source, [make_adapter(source, tmp_path / f"{n}", target_modules=[], **k) for n, k in enumerate(kinds)], tmp_path
    )
    assert set(calls) == {2}


def test_names_sorted_as_text(calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source")
    save_file(dict(sorted(stored(source).items())), source / "model.safetensors", metadata={"format": "pt"})
    check(source, [make_adapter(source, tmp_path / "a", target_modules=[], target_parameters=BOTH)], tmp_path)


def test_matrices_that_begin_anywhere_are_merged_whole(calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source", moe_intermediate_size=7, hidden_size=60)
    check(source, [make_adapter(source, tmp_path / "a", target_modules=[], target_parameters=BOTH)], tmp_path)
    assert calls == []


def test_a_block_that_is_saved_is_replaced_whole(calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source")
    check(source, [make_adapter(source, tmp_path / "a", modules_to_save=["experts"])], tmp_path)
    assert calls == []


def test_as_many_at_once_as_the_limit_says(calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = moe(tmp_path / "source", num_experts=32)
    # Three matrices of five experts, in bytes.
    monkeypatch.setattr(merger, "_BATCH", 5 * 3 * 64 * 32 * 2)
    merged(source, [make_adapter(source, tmp_path / "a", target_modules=[], target_parameters=BOTH)], tmp_path / "o")
    assert calls == 2 * [5, 5, 5, 5, 5, 5, 2]


@pytest.mark.parametrize("few", [False, True])
def test_an_adapter_from_before_experts_were_fused(few: bool, calls: list[int], tmp_path: Path) -> None:
    source = moe(tmp_path / "source", **({} if few else {"moe_intermediate_size": 30}))
    adapter = make_adapter(source, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    targets = ["gate_proj", "up_proj", "down_proj"]
    write_json(adapter / "adapter_config.json", {**config, "target_modules": targets})
    tensors = {}
    for name, weight in stored(source).items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        if ".experts." in name:
            tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, weight.shape[1])
            tensors[f"{prefix}.lora_B.weight"] = torch.randn(weight.shape[0], 4)
    save_file(tensors, adapter / "adapter_model.safetensors")
    check(source, [adapter], tmp_path)
    assert bool(calls) == few
