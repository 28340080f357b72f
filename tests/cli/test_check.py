"""The check finds every weight that does not fit, reads none, and leaves no trace."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swaa_convert.convert import convert_checkpoint
from swaa_convert.errors import SwaaError
from swaa_convert.recipe import Recipe
from tests.support.sources import FAMILIES, make_source, make_weights, write_weights

Weights = dict[str, torch.Tensor]
CHANGES: list[tuple[str, Callable[[Weights], object], str]] = [
    ("qwen3", lambda w: w.pop("model.layers.1.self_attn.q_proj.weight"), "q_proj.weight is missing"),
    ("qwen3", lambda w: w.pop("lm_head.weight"), "lm_head.weight is missing"),
    ("qwen2", lambda w: w.pop("model.layers.1.self_attn.q_proj.bias"), "q_proj.bias is missing"),
    ("llama", lambda w: w.update({"extra.weight": torch.ones(2)}), "extra.weight is unexpected"),
    ("llama", lambda w: w.update({"model.norm.weight": torch.ones(5)}), "model.norm.weight is of the wrong shape"),
    ("qwen3_moe", lambda w: w.pop("model.layers.1.mlp.gate.weight"), "mlp.gate.weight is missing"),
]


def rewrite(source: Path, change: Callable[[Weights], object]) -> None:
    weights = make_weights(json.loads((source / "config.json").read_text()))
    change(weights)
    write_weights(source, weights)


@pytest.mark.parametrize(("family", "change", "said"), CHANGES)
def test_weights_that_do_not_fit(family: str, change: Callable[[Weights], object], said: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family)
    rewrite(source, change)
    with pytest.raises(SwaaError, match=said):
        convert_checkpoint(source, tmp_path / "out", Recipe())
    assert not (tmp_path / "out").exists()


def test_missing_expert(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen3_moe")
    rewrite(source, lambda weights: weights.pop("model.layers.2.mlp.experts.3.up_proj.weight"))
    with pytest.raises(SwaaError, match="do not fit"):
        convert_checkpoint(source, tmp_path / "out", Recipe())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tied_weights_and_half_precision(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family, tie_word_embeddings=True, dtype=dtype)
    convert_checkpoint(source, tmp_path / "out", Recipe())


def test_tied_weights_that_are_stored_twice(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", tie_word_embeddings=True)
    rewrite(source, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    convert_checkpoint(source, tmp_path / "out", Recipe())


def test_leaves_no_trace(source: Path, tmp_path: Path) -> None:
    convert_checkpoint(source, tmp_path / "out", Recipe())
    assert not list(tmp_path.rglob("__pycache__"))
    assert not [name for name in sys.modules if name.startswith("swaa_check_")]
    assert sys.dont_write_bytecode is False or "PYTHONDONTWRITEBYTECODE" in __import__("os").environ


def packed(weights: Weights) -> None:
    """AWQ's names: the linear layers' weights packed into three tensors each."""
    for name in [name for name in weights if "_proj.weight" in name]:
        del weights[name]
        prefix = name.removesuffix(".weight")
        for part in ("qweight", "qzeros", "scales"):
            weights[f"{prefix}.{part}"] = torch.zeros(2, 2, dtype=torch.int32)


def quantized(tmp_path: Path, family: str, change: Callable[[Weights], object]) -> Path:
    config: dict[str, Any] = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}}
    source = make_source(tmp_path / "source", family, **config)
    rewrite(source, change)
    return source


@pytest.mark.parametrize("family", FAMILIES)
def test_quantized_sources_convert_untouched(family: str, tmp_path: Path) -> None:
    source = quantized(tmp_path, family, packed)
    repo = convert_checkpoint(source, tmp_path / "out", Recipe())
    assert (repo / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert json.loads((repo / "config.json").read_text())["quantization_config"]["bits"] == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: [w.pop(n) for n in list(w) if "layers.1.self_attn.q_proj" in n], "q_proj is missing"),
        (lambda w: w.update({"model.layers.9.x.qweight": torch.ones(2)}), "model.layers.9.x.qweight is unexpected"),
    ],
)
def test_quantized_sources_that_do_not_fit(change: Callable[[Weights], object], said: str, tmp_path: Path) -> None:
    def both(weights: Weights) -> None:
        packed(weights)
        change(weights)

    source = quantized(tmp_path, "qwen3", both)
    with pytest.raises(SwaaError, match=said):
        convert_checkpoint(source, tmp_path / "out", Recipe())
