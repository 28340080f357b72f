"""Large modules are merged some rows at a time, with the bits that peft's whole ones give, and in little memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from swaa_convert.merge import merger, peft_merge
from swaa_convert.merge.rows import Rows
from tests.merge.test_same_bits import BF16, check
from tests.support.adapters import make_adapter
from tests.support.sources import make_config, make_source, weight_shapes, write_json

BOTH = ["embed_tokens", "lm_head"]
# No multiple of anything: 5003 is prime.
ODD = {"vocab_size": 5003, "num_hidden_layers": 2}
KINDS: dict[str, dict[str, Any]] = {
    "embeddings": {"target_modules": ["q_proj", *BOTH]},
    "input": {"target_modules": ["embed_tokens"], "init_lora_weights": "gaussian"},
    "rslora": {"target_modules": ["lm_head"], "use_rslora": True, "r": 64, "lora_alpha": 32},
    "patterns": {"target_modules": BOTH, "rank_pattern": {"lm_head": 2}, "alpha_pattern": {".*embed_tokens": 99}},
    "dora": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "all_linear": {"target_modules": "all-linear"},
    "fan_in_fan_out": {"target_modules": BOTH, "fan_in_fan_out": True},
}
WHOLE: dict[str, dict[str, Any]] = {
    "dora": {"target_modules": ["embed_tokens"], "use_dora": True},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
    "pissa": {"target_modules": ["lm_head"], "init_lora_weights": "pissa"},
}
if "ensure_weight_tying" in LoraConfig.__dataclass_fields__:
    TIED = {"ensured": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}}
else:
    TIED = {}
GB = 10**9
# The most memory that a command had, in bytes.
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The units that are merged by rows, of which there are about 700 at a time."""
    found: list[tuple[str, ...]] = []

    def counted(model: Any, rows: Rows, most: int, *rest: Any) -> Any:
        found.append(rows.unit)
        return peft_merge.merge_rows(model, rows, min(most, 700), *rest)

    monkeypatch.setattr(merger, "_BATCH", 60_000)
    monkeypatch.setattr(merger, "merge_rows", counted)
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS | TIED)
def test_every_kind(kind: str, tied: bool, calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=BF16, tie_word_embeddings=tied, **ODD)
    check(source, [make_adapter(source, tmp_path / "adapter", **(KINDS | TIED)[kind])], tmp_path)
    paths = {path for unit in calls for path in unit}
    assert paths & {"lm_head", "model.embed_tokens"} or kind == "all_linear"


@pytest.mark.parametrize("kind", WHOLE)
def test_what_needs_the_whole_gets_it(kind: str, calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=BF16, **ODD)
    check(source, [make_adapter(source, tmp_path / "adapter", **WHOLE[kind])], tmp_path)
    assert calls == []


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32])
@pytest.mark.parametrize("rank", [1, 7, 16, 64])
@pytest.mark.parametrize(("vocab", "hidden"), [(4096, 96), (8193, 64)])
def test_sizes(
    vocab: int, hidden: int, rank: int, dtype: torch.dtype, calls: list[tuple[str, ...]], tmp_path: Path
) -> None:
    sizes = {"vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": 2}
    source = make_source(tmp_path / "source", dtype=dtype, **sizes)
    check(source, [make_adapter(source, tmp_path / "a", target_modules=BOTH, r=rank)], tmp_path, dtype)
    assert sorted(calls) == [("lm_head",), ("model.embed_tokens",)]


def test_one_after_the_other(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=BF16, **ODD)
    kinds = ("embeddings", "dora", "rslora")
    check(source, [make_adapter(source, tmp_path / kind, **KINDS[kind]) for kind in kinds], tmp_path)
    assert ("lm_head",) in calls


def test_a_bias_has_rows_too(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen2", dtype=BF16, hidden_size=256, num_hidden_layers=2)
    check(source, [make_adapter(source, tmp_path / "adapter", target_modules=["q_proj"])], tmp_path)
    assert calls == [(f"model.layers.{layer}.self_attn.q_proj",) for layer in range(2)]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 4096, 5003])
@pytest.mark.parametrize("most", [0, 16, 700, 10**9])
def test_blocks(count: int, most: int) -> None:
    blocks = list(Rows(("lm_head",), count).blocks(most))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(count))
    assert all(block.start % 16 == 0 and block.stop - block.start >= min(16, count) for block in blocks)


def test_realistic_widths(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    sizes = {"vocab_size": 4801, "hidden_size": 1024, "num_hidden_layers": 2}
    source = make_source(tmp_path / "source", dtype=BF16, **sizes)
    check(source, [make_adapter(source, tmp_path / "a", target_modules=BOTH, r=32)], tmp_path)
    assert sorted(calls)[0] == ("lm_head",)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts memory otherwise")
@pytest.mark.parametrize("dora", [False, True])
def test_memory(dora: bool, tmp_path: Path) -> None:
    # As large as Qwen3-0.6B's.
    config = make_config("qwen3", vocab_size=151_936, hidden_size=1024, num_hidden_layers=2, torch_dtype="bfloat16")
    source, adapter = _large_source(tmp_path / "source", config), _large_adapter(tmp_path / "adapter", config, dora)
    command = [sys.executable, "-m", "swaa_convert", source, "--lora", adapter, "--out", tmp_path / "out", "--link"]
    result = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    shard = max(path.stat().st_size for path in source.glob("*.safetensors"))
    assert int(result.stdout.splitlines()[-1]) < shard + GB


def _large_source(path: Path, config: dict[str, Any]) -> Path:
    """A checkpoint with its output embeddings in a file of their own."""
    path.mkdir()
    write_json(path / "config.json", config)
    files: dict[str, dict[str, torch.Tensor]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for name, shape in weight_shapes(config):
        files[f"model-{1 + name.startswith('lm_head')}.safetensors"][name] = torch.full(shape, 0.01, dtype=BF16)
    for file, tensors in files.items():
        save_file(tensors, path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, tensors in files.items() for name in tensors}}
    write_json(path / "model.safetensors.index.json", index)
    return path


def _large_adapter(path: Path, config: dict[str, Any], dora: bool) -> Path:
    LoraConfig(r=16, task_type="CAUSAL_LM", target_modules=["lm_head"], use_dora=dora).save_pretrained(str(path))
    vocab, prefix = config["vocab_size"], "base_model.model.lm_head"
    tensors = {f"{prefix}.lora_A.weight": torch.randn(16, config["hidden_size"])}
    tensors[f"{prefix}.lora_B.weight"] = torch.randn(vocab, 16)
    # What peft saves by itself beside a LoRA onto embeddings.
    tensors[f"{prefix}.base_layer.weight"] = torch.full((vocab, config["hidden_size"]), 0.01, dtype=BF16)
    if dora:
        tensors[f"{prefix}.lora_magnitude_vector"] = torch.ones(vocab)
    save_file(tensors, path / "adapter_model.safetensors")
    return path
