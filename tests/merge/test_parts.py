"""Large modules are merged some rows or columns at a time, with the bits of peft's whole ones, in little memory."""

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from swaa_convert.merge import loaded, merger, peft_merge
from swaa_convert.merge.parts import ROWS, Parts
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
    "dora_embeddings": {"target_modules": ["embed_tokens"], "use_dora": True},
    "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "saved_both": {"target_modules": ["q_proj"], "modules_to_save": BOTH},
    "saved_beside_pissa": {"target_modules": ["q_proj"], "modules_to_save": BOTH, "init_lora_weights": "pissa"},
    # In three of seven parts, in any order, with neighbours.
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [4999, 0, 1, 2100, 5002, 703]},
    "tokens_by_name": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 700, 699]}},
}
# Onto one of the embeddings, with the other replaced.
BESIDE: dict[str, dict[str, Any]] = {
    "saved_beside_head": {"target_modules": ["lm_head"], "modules_to_save": ["embed_tokens"]},
    "tokens_beside_head": {"target_modules": ["lm_head"], "trainable_token_indices": [1, 5]},
}
STARTS: dict[str, dict[str, Any]] = {
    "pissa": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "pissa"},
    "olora": {"target_modules": r".*\.(q_proj|v_proj)|lm_head", "init_lora_weights": "olora"},
    "excluded": {
        "target_modules": ["q_proj", "lm_head"],
        "exclude_modules": r".*\.0\..*",
        "init_lora_weights": "pissa",
    },
    "excluded_by_name": {
        "target_modules": ["q_proj", "lm_head"],
        "exclude_modules": ["model.layers.0.self_attn.q_proj"],
        "init_lora_weights": "pissa",
    },
}
WHOLE: dict[str, dict[str, Any]] = {
    "pissa": {"target_modules": ["lm_head"], "init_lora_weights": "pissa"},
    "tokens_of_two": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5], "lm_head": [7]}},
}
if "ensure_weight_tying" in LoraConfig.__dataclass_fields__:
    TIED = {
        "ensured": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
        "ensured_saved": {"target_modules": ["q_proj"], "modules_to_save": BOTH, "ensure_weight_tying": True},
    }
else:
    TIED = {}
GB = 10**9
VOCAB, HIDDEN = WHOLE_SHAPE = (151_936, 1024)
INPUT = "model.embed_tokens"
Q = {"lora_A.weight": (16, HIDDEN), "lora_B.weight": (128, 16)}
Q = {f"model.layers.{layer}.self_attn.q_proj.{name}": shape for layer in range(2) for name, shape in Q.items()}
HEAD = {"lora_A.weight": (16, HIDDEN), "lora_B.weight": (VOCAB, 16), "base_layer.weight": WHOLE_SHAPE}
HEAD = {f"lm_head.{name}": shape for name, shape in HEAD.items()}
EMBEDDED = {"lora_embedding_A": (16, VOCAB), "lora_embedding_B": (HIDDEN, 16), "base_layer.weight": WHOLE_SHAPE}
EMBEDDED = {f"{INPUT}.{name}": shape for name, shape in EMBEDDED.items()}
SAVED = {f"{INPUT}.weight": WHOLE_SHAPE, "lm_head.weight": WHOLE_SHAPE}
DELTA = {f"{INPUT}.token_adapter.trainable_tokens_delta": (3, HIDDEN)}
# Options of the adapter, and what it holds.
LARGE: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "head": ({"target_modules": ["lm_head"]}, HEAD),
    "dora_head": (
        {"target_modules": ["lm_head"], "use_dora": True},
        HEAD | {"lm_head.lora_magnitude_vector": (VOCAB,)},
    ),
    "dora_embeddings": (
        {"target_modules": ["embed_tokens"], "use_dora": True},
        EMBEDDED | {f"{INPUT}.lora_magnitude_vector": (HIDDEN,)},
    ),
    "saved": ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, Q | SAVED),
    "tokens": ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 5, 150_000]}, Q | DELTA),
}
LARGE |= {f"{kind}_tied": LARGE[kind] for kind in ("dora_embeddings", "saved", "tokens")}
# The most memory that a command had, in bytes.
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == 'darwin' else 1024))"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The units that are merged in parts, of about 700 rows or 16 columns at a time."""
    found: list[tuple[str, ...]] = []

    def counted(model: Any, parts: Parts, most: int, *rest: Any) -> Any:
        found.append(parts.unit)
        return peft_merge.merge_parts(model, parts, min(most, 700 if parts.axis == ROWS else 16), *rest)

    monkeypatch.setattr(merger, "_BATCH", 60_000)
    monkeypatch.setattr(merger, "merge_parts", counted)
    return found


@pytest.mark.parametrize(("kind", "tied"), [*product(KINDS | TIED, [False, True]), *product(BESIDE, [False])])
def test_every_kind(kind: str, tied: bool, calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", dtype=BF16, tie_word_embeddings=tied, **ODD)
    check(source, [make_adapter(source, tmp_path / "adapter", **(KINDS | TIED | BESIDE)[kind])], tmp_path)
    paths = {path for unit in calls for path in unit}
    assert paths & {"lm_head", "model.embed_tokens"} or kind == "all_linear"


def test_a_lora_beside_saved_tied_embeddings(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    # peft wraps one layer in another, which parts would have to follow.
    source = make_source(tmp_path / "source", dtype=BF16, tie_word_embeddings=True, **ODD)
    check(source, [make_adapter(source, tmp_path / "adapter", **BESIDE["saved_beside_head"])], tmp_path)
    assert calls == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", STARTS)
def test_a_start_from_weights_of_several_units(
    kind: str, tied: bool, calls: list[tuple[str, ...]], tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source", dtype=BF16, tie_word_embeddings=tied, **ODD)
    adapters = [make_adapter(source, tmp_path / "a", **STARTS[kind])]
    check(source, adapters, tmp_path / "one")
    adapters += [make_adapter(source, tmp_path / "b", **KINDS["saved"])]
    check(source, adapters, tmp_path / "two")


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


def test_columns_of_what_is_mapped_by_pieces(
    calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loaded, "_MAPPED", 50_000)
    source = make_source(tmp_path / "source", dtype=BF16, **ODD)
    check(source, [make_adapter(source, tmp_path / "adapter", **KINDS["dora_embeddings"])], tmp_path)
    assert calls == [("model.embed_tokens",)]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 4096, 5003])
@pytest.mark.parametrize("most", [0, 16, 700, 10**9])
def test_blocks(count: int, most: int) -> None:
    blocks = list(Parts(("lm_head",), ROWS, count).blocks(most))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(count))
    assert all(block.start % 16 == 0 and block.stop - block.start >= min(16, count) for block in blocks)


def test_realistic_widths(calls: list[tuple[str, ...]], tmp_path: Path) -> None:
    sizes = {"vocab_size": 4801, "hidden_size": 1024, "num_hidden_layers": 2}
    source = make_source(tmp_path / "source", dtype=BF16, **sizes)
    check(source, [make_adapter(source, tmp_path / "a", target_modules=BOTH, r=32)], tmp_path)
    assert sorted(calls)[0] == ("lm_head",)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts memory otherwise")
@pytest.mark.parametrize("kind", LARGE)
def test_memory(kind: str, tmp_path: Path) -> None:
    # As large as Qwen3-0.6B's.
    tied = kind.endswith("tied")
    config = make_config(
        "qwen3",
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        torch_dtype="bfloat16",
        tie_word_embeddings=tied,
    )
    source, adapter = _large_source(tmp_path / "source", config), _large_adapter(tmp_path / "adapter", *LARGE[kind])
    command = [sys.executable, "-m", "swaa_convert", source, "--lora", adapter, "--out", tmp_path / "out", "--link"]
    peak, libraries = _peak(*command), _peak(sys.executable, "-c", "import peft, transformers")
    shard = max(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert peak - libraries < shard + 0.6 * GB


def _peak(*command: Any) -> int:
    """A CUDA build of PyTorch alone takes 0.4 GB more than one without."""
    result = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True, check=True)
    return int(result.stdout.splitlines()[-1])


def _large_source(path: Path, config: dict[str, Any]) -> Path:
    """A checkpoint with its output embeddings in a file of their own."""
    path.mkdir()
    write_json(path / "config.json", config)
    files: dict[str, dict[str, torch.Tensor]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for name, shape in weight_shapes(config):
        files[f"model-{1 + name.startswith('lm_head')}.safetensors"][name] = torch.full(shape, 0.01, dtype=BF16)
    files = {file: tensors for file, tensors in files.items() if tensors}
    for file, tensors in files.items():
        save_file(tensors, path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, tensors in files.items() for name in tensors}}
    write_json(path / "model.safetensors.index.json", index)
    return path


def _large_adapter(path: Path, options: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    LoraConfig(r=16, task_type="CAUSAL_LM", **options).save_pretrained(str(path))
    # As peft saves them: whole embeddings in the model's dtype.
    tensors = {
        f"base_model.model.{name}": torch.full(shape, 0.01, dtype=BF16 if shape == WHOLE_SHAPE else torch.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path
