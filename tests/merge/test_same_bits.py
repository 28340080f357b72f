"""Whatever peft merges, comes out with the same bits, names and dtypes as from peft's load, merge and save."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from swaa_convert.convert import convert_checkpoint
from swaa_convert.merge.adapter import open_adapters
from swaa_convert.recipe import Recipe
from tests.merge.conftest import Make
from tests.support.adapters import (
    EXPERTS,
    KINDS,
    QV,
    TIES,
    assert_same_bits,
    copied,
    make_adapter,
    saved_by_peft,
    stored,
)
from tests.support.sources import FAMILIES, write_json

BF16 = torch.bfloat16
# What peft wrote at first.
OLD_KEYS = (
    "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "lora_alpha",
    "lora_dropout", "modules_to_save", "peft_type", "r", "target_modules", "task_type",
)  # fmt: skip
CASES = [(family, tied, kind) for family in FAMILIES for tied in (False, True) for kind in KINDS]
CASES += [(family, True, kind) for family in FAMILIES for kind in TIES]
CASES += [("qwen3_moe", False, kind) for kind in EXPERTS]


def merged(source: Path, adapters: list[Path], out: Path, **options: Any) -> Path:
    given = open_adapters([str(adapter) for adapter in adapters])
    return convert_checkpoint(source, out, Recipe(window=8, keep_first=2), adapters=given, **options)


def check(source: Path, adapters: list[Path], tmp_path: Path, dtype: torch.dtype = BF16) -> None:
    """Our merge against peft's."""
    repo = merged(source, adapters, tmp_path / "ours")
    theirs = saved_by_peft(source, adapters, dtype, tmp_path / "theirs")
    assert_same_bits(stored(repo), stored(theirs))
    config, expected = (json.loads((folder / "config.json").read_text()) for folder in (repo, theirs))
    assert config["tie_word_embeddings"] == expected.get("tie_word_embeddings", True)


@pytest.mark.parametrize(("family", "tied", "kind"), CASES)
def test_every_kind(family: str, tied: bool, kind: str, source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = source_of(family, tied)
    check(source, [adapter_of(source, kind, **(KINDS | TIES | EXPERTS)[kind])], tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["rslora", "dora", "embeddings"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes(
    family: str, kind: str, dtype: torch.dtype, source_of: Make, adapter_of: Make, tmp_path: Path
) -> None:
    source = source_of(family, dtype=dtype)
    check(source, [adapter_of(source, kind, **KINDS[kind])], tmp_path, dtype)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", [("plain", "dora"), ("saved_mlp", "all_linear"), ("saved_head", "head")])
def test_one_after_the_other(
    family: str, kinds: tuple[str, str], source_of: Make, adapter_of: Make, tmp_path: Path
) -> None:
    source = source_of(family, tied=True)
    check(source, [adapter_of(source, kind, **KINDS[kind]) for kind in kinds], tmp_path)


def test_the_order_matters(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = source_of()
    adapters = [adapter_of(source), adapter_of(source, "saved_mlp", **KINDS["saved_mlp"])]
    check(source, adapters[::-1], tmp_path)


def test_an_adapter_in_another_dtype(source_of: Make, tmp_path: Path) -> None:
    adapter = make_adapter(source_of(dtype=torch.float32), tmp_path / "adapter", modules_to_save=["norm"])
    check(source_of(dtype=torch.float16), [adapter], tmp_path, torch.float16)


def test_rslora_is_not_ignored(source_of: Make, tmp_path: Path) -> None:
    source, options = source_of(), {"r": 16, "lora_alpha": 32, "target_modules": QV}
    one, two = (make_adapter(source, tmp_path / f"{n}", use_rslora=bool(n), **options) for n in (0, 1))
    name = "model.layers.0.self_attn.q_proj.weight"
    base = stored(source)[name].float()
    plain, scaled = (stored(merged(source, [each], tmp_path / f"o{each.name}"))[name].float() for each in (one, two))
    # The reference trainer's setting: a scale of 8, where ignoring rsLoRA gives 2.
    torch.testing.assert_close((scaled - base).norm() / (plain - base).norm(), torch.tensor(4.0), rtol=0.01, atol=0)


def test_untied_embeddings_load(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = source_of(tied=True)
    repo = merged(source, [adapter_of(source, "saved_head", **KINDS["saved_head"])], tmp_path / "untied")
    model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, dtype=BF16)
    assert torch.equal(model.lm_head.weight, stored(repo)["lm_head.weight"])
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_an_adapter_of_an_older_peft(source_of: Make, adapter_of: Make, tmp_path: Path) -> None:
    source = source_of()
    adapter = copied(adapter_of(source, "saved_head", **KINDS["saved_head"]), tmp_path / "adapter")
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", {key: config[key] for key in OLD_KEYS} | {"enable_lora": None})
    check(source, [adapter], tmp_path)
