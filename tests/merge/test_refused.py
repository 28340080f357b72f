"""Adapters that cannot be merged are refused in one line that names them and the way out, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file

from tests.merge.conftest import Make
from tests.support.adapters import copied, make_adapter, make_other
from tests.support.command import refused, run
from tests.support.sources import make_source, write_json

Change = Callable[[Path], object]
WEIGHTS = "adapter_model.safetensors"
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def setting(**values: Any) -> Change:
    """Change keys of adapter_config.json; `...` removes one."""

    def change(adapter: Path) -> None:
        old = json.loads((adapter / "adapter_config.json").read_text())
        write_json(adapter / "adapter_config.json", {k: v for k, v in {**old, **values}.items() if v is not ...})

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Change the adapter's tensors."""

    def rewrite(adapter: Path) -> None:
        found = load_file(adapter / WEIGHTS)
        change(found)
        save_file(found, adapter / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def without(name: str) -> Change:
    return lambda adapter: (adapter / name).unlink()


def written(name: str, data: bytes) -> Change:
    return lambda adapter: (adapter / name).write_bytes(data)


def pickled(adapter: Path) -> None:
    """Weights that would run code when they are loaded."""
    (adapter / WEIGHTS).unlink()
    torch.save({"evil": Path}, adapter / "adapter_model.bin")


REFUSED: dict[str, tuple[Change, str]] = {
    "not a number": (tensors(lambda t: t[KEY].fill_(float("nan"))), f"{KEY} holds NaN or infinity"),
    "infinite": (tensors(lambda t: t[KEY].view(-1)[3:4].fill_(float("-inf"))), "holds NaN or infinity"),
    "a key too many": (
        tensors(lambda t: t.update({KEY.replace("q_proj", "k_proj"): t[KEY].clone()})),
        "holds model.layers.0.self_attn.k_proj.lora_A.weight",
    ),
    "an unknown module": (
        tensors(lambda t: t.update({KEY.replace("layers.0", "layers.9"): t[KEY].clone()})),
        "holds model.layers.9.self_attn.q_proj.lora_A.weight",
    ),
    "keys of another model": (
        tensors(lambda t: [t.update({k.replace("model.layers", "language_model.layers"): t.pop(k)}) for k in list(t)]),
        "is org/base really its base?",
    ),
    "a key too few": (tensors(lambda t: t.pop(KEY)), "lacks model.layers.0.self_attn.q_proj.lora_A.weight"),
    "no keys": (tensors(lambda t: t.clear()), "holds no tensors"),
    "another width": (
        tensors(lambda t: t.update({KEY: torch.zeros(4, 32)})),
        "q_proj.lora_A.weight has shape [4, 32], but the model needs [4, 64]: is org/base",
    ),
    "another rank": (setting(r=5), "has shape [4, 64], but the model needs [5, 64]"),
    "unknown targets": (setting(target_modules=["c_attn"]), "c_attn"),
    "no config": (without("adapter_config.json"), "has no adapter_config.json"),
    "no weights": (without(WEIGHTS), f"has no {WEIGHTS}"),
    "no method": (setting(peft_type=...), "names no peft_type"),
    "a setting of the future": (setting(use_hyper_lora=True), "use_hyper_lora, which the installed peft does not know"),
    "repeated layers": (setting(layer_replication=[[0, 2], [1, 3]]), "repeats layers of its base"),
    "activated only after a prompt": (setting(alora_invocation_tokens=[1, 2]), "load the adapter onto the result"),
    "broken config": (written("adapter_config.json", b"{"), "adapter_config.json is not valid JSON"),
    "a list": (written("adapter_config.json", b"[]"), "must hold a JSON object"),
    "truncated": (written(WEIGHTS, b"\x10\x00\x00"), "is damaged"),
    "a pickle that runs code": (pickled, "adapter_model.bin is damaged or holds more than tensors"),
    "a swaa_config that is none": (setting(swaa_config=3), "swaa_config in adapter_config.json must be an object"),
    "a misspelt swaa_config": (setting(swaa_config={"keep_frist": 3}), "did you mean 'keep_first'?"),
}


@pytest.fixture
def adapter(source_of: Make, adapter_of: Make, tmp_path: Path) -> Path:
    """An adapter of the test's own."""
    own = copied(adapter_of(source_of()), tmp_path / "adapter")
    setting(base_model_name_or_path="org/base")(own)
    return own


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    change, said = REFUSED[case]
    change(adapter)
    before = sorted(tmp_path.iterdir())
    line = refused(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--quiet")
    assert said in line and line.startswith(("adapter", "--lora: adapter"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("config", [IA3Config, LoHaConfig, LoKrConfig])
def test_other_methods(config: Any, source_of: Make, tmp_path: Path) -> None:
    options = {"feedforward_modules": []} if config is IA3Config else {}
    make_other(source_of(), tmp_path / "a", config(target_modules=["q_proj"], **options))
    said = refused(source_of(), "--lora", tmp_path / "a", "--out", tmp_path / "out", "-q")
    assert f"is a {config().peft_type.value} adapter, and --lora merges LoRA only: merge it with peft's" in said


def test_prompts(source_of: Make, tmp_path: Path) -> None:
    make_other(source_of(), tmp_path / "a", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    said = refused(source_of(), "--lora", tmp_path / "a", "--out", tmp_path / "out", "-q")
    assert "which no weights can hold: convert the source without --lora" in said


@pytest.mark.parametrize("method", ["awq", "gptq", "fp8", "bitsandbytes"])
def test_quantized_sources(method: str, adapter: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", quantization_config={"quant_method": method})
    said = refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert f"source is quantized ({method}), and a LoRA cannot be merged" in said


def test_weights_in_eight_bits(adapter: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    save_file({**weights, name: weights[name].to(torch.float8_e4m3fn)}, source / "model.safetensors")
    said = refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert f"{name} is stored as F8_E4M3" in said


def test_weights_of_another_shape(adapter: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    name = "model.layers.1.self_attn.q_proj.weight"
    weights = load_file(source / "model.safetensors")
    save_file({**weights, name: weights[name][:5].contiguous()}, source / "model.safetensors")
    said = refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert f"{name} has shape [5, 64], but config.json has [128, 64]" in said


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_another_family_of_other_shapes(family: str, adapter: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family)
    assert "does not fit source" in refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")


def test_tied_embeddings_that_differ(source_of: Make, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    adapter = make_adapter(source, tmp_path / "adapter", target_modules=["lm_head"])
    config = json.loads((source / "config.json").read_text())
    write_json(source / "config.json", {**config, "tie_word_embeddings": True})
    said = refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert "config.json ties the embeddings, but" in said


@pytest.mark.parametrize("given", ["nowhere", "./nowhere", "", "config.json", "a/b/c"])
def test_no_such_adapter(given: str, source_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source_of())
    assert refused(source_of(), "--lora", given, "--out", tmp_path / "out", "-q").startswith("--lora")


def test_an_adapter_that_force_would_remove(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    assert run(source_of(), "--out", tmp_path / "out", "-q").exit_code == 0
    inside = adapter.rename(tmp_path / "out/adapter")
    assert "lies inside --out" in refused(source_of(), "--lora", inside, "--out", tmp_path / "out", "--force", "-q")
    assert inside.is_dir()


def test_a_model_is_no_adapter(source_of: Make, tmp_path: Path) -> None:
    said = refused(source_of(), "--lora", source_of(), "--out", tmp_path / "out", "-q")
    assert "is a model, not an adapter" in said


def test_options_that_exclude_each_other(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    args = (source_of(), "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert "exclude each other" in refused(*args, "--no-lora", code=2)
    assert "has no --lora that comes from the Hub" in refused(*args, "--lora-revision", "main", code=2)
    assert "is not a size such as 5GB" in refused(*args, "--max-shard-size", "big", code=2)


def test_another_base_on_the_hub(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--Qwen--Qwen3-4B-Base/snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    copied(source_of(), snapshot)
    args = (snapshot, "--lora", adapter, "--out", tmp_path / "out", "--dry-run")
    setting(base_model_name_or_path="Qwen/Qwen3-4B")(adapter)
    assert "was trained on Qwen/Qwen3-4B, not on Qwen/Qwen3-4B-Base" in refused(*args, "--quiet")
    setting(base_model_name_or_path="unsloth/qwen3-4b-base-unsloth-bnb-4bit")(adapter)
    assert "Note     adapter names unsloth/qwen3-4b-base-unsloth-bnb-4bit as its base" in run(*args).stdout
    setting(base_model_name_or_path="/home/me/Qwen3-4B-Base")(adapter)
    assert "Note     adapter names /home/me/Qwen3-4B-Base" in run(*args).stdout
    setting(base_model_name_or_path="Qwen/Qwen3-4B-Base")(adapter)
    assert "Note     " not in run(*args).stdout
