"""Adapters that cannot be merged are refused in one line that names them and the way out, and nothing is written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file

from tests.merge.changes import (
    KEY,
    WEIGHTS,
    Change,
    as_bin,
    cast,
    damaged_bin,
    moved_out,
    odd_bin,
    packed,
    pickled,
    pointer,
    replaced,
    setting,
    tensors,
    trained_on,
    without,
    written,
)
from tests.merge.conftest import Make
from tests.support.adapters import copied, make_adapter, make_other
from tests.support.command import refused, run
from tests.support.sources import make_source, write_json

NO_LORAS = "which is no LoRA's: save the adapter again in bf16"
NOT_REPEATED = "was started by a random SVD that cannot be repeated (init_lora_weights"
TRAINED = "was trained on a {} (auto_mapping in adapter_config.json), but qwen3-untied-bfloat16 is a Qwen3ForCausalLM: "
DAMAGED = "adapter: adapter_model.bin is damaged or holds more than tensors: load it with peft once"
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
    "a swaa_config of the future": (
        setting(swaa_config={"sliding_window_size": 9, "news": 1, "version": 9}),
        "adapter_config.json: swaa_config has version 9, but swaa-convert",
    ),
    "a swaa_config of true": (setting(swaa_config={"version": True}), "swaa_config has version True"),
    "a switch in words": (
        setting(swaa_config={"sliding_window_size": 9, "force_fa_decode": "false"}),
        "adapter_config.json: force_fa_decode in swaa_config must be true, false or a list of layers, not 'false'",
    ),
    "a layer that is no list": (
        setting(swaa_config={"sliding_window_size": 9, "non_sliding_layers": 0}),
        "non_sliding_layers in swaa_config must be a list of layers, not 0",
    ),
    "a random start": (setting(init_lora_weights="pissa_niter_4"), f"{NOT_REPEATED} 'pissa_niter_4'"),
    "a start from its inputs": (setting(init_lora_weights="corda"), "from the inputs of its layers, which are"),
    "float8": (cast(torch.float8_e4m3fn), f"{KEY} is stored as F8_E4M3, {NO_LORAS}"),
    "another float8": (cast(torch.float8_e5m2), f"{KEY} is stored as F8_E5M2, {NO_LORAS}"),
    "int8": (cast(torch.int8), f"{KEY} is stored as I8, {NO_LORAS}"),
    "int64": (cast(torch.int64), f"{KEY} is stored as I64, {NO_LORAS}"),
    "bool": (cast(torch.bool), f"{KEY} is stored as BOOL, {NO_LORAS}"),
    "complex": (cast(torch.complex64), f"{KEY} is stored as C64, {NO_LORAS}"),
    "float4": (packed("F4", 2), f"x is stored as F4, {NO_LORAS}"),
    "float6": (packed("F6_E2M3", 3), f"x is stored as F6_E2M3, {NO_LORAS}"),
    "exponents": (packed("F8_E8M0", 4), f"x is stored as F8_E8M0, {NO_LORAS}"),
    "a pickle cut off": (damaged_bin(lambda data: data[: len(data) // 2]), DAMAGED),
    "half a kilobyte of a pickle": (damaged_bin(lambda data: data[:500]), DAMAGED),
    "an empty pickle": (damaged_bin(lambda data: b""), DAMAGED),
    "text for a pickle": (damaged_bin(lambda data: b"hello, world\n"), DAMAGED),
    "a page for a pickle": (damaged_bin(lambda data: b"<html><body>404</body></html>"), DAMAGED),
    "a sparse tensor": (odd_bin(lambda tensor: tensor.to_sparse()), f"adapter_model.bin holds {KEY} without plain"),
    "a meta tensor": (odd_bin(lambda tensor: tensor.to("meta")), f"adapter_model.bin holds {KEY} without plain"),
    "a list of tensors": (odd_bin(lambda tensor: tensor, listed=True), DAMAGED),
    "an absurd rank": (setting(r=10**12), "r in adapter_config.json has a rank of 1000000000000, but no tensor"),
    "an absurd rank of some": (
        setting(rank_pattern={"q_proj": 10**30}),
        f"rank_pattern in adapter_config.json has a rank of {10**30}, but no tensor in {WEIGHTS} is larger than 128",
    ),
    "KaSA": (setting(kasa_config={"beta": 1e-4}), "is a KaSA adapter (kasa_config in adapter_config.json), which"),
    "MonteCLoRA": (setting(monteclora_config={"buffer_size": 9}), "is a MonteCLoRA adapter (monteclora_config in"),
    "int8 in a pickle": (as_bin(torch.int8), f"{KEY} is stored as int8, {NO_LORAS}"),
    "a pointer": (pointer(WEIGHTS), f"{WEIGHTS} is a git-lfs pointer, not the weights"),
    "a pointer to a pickle": (pointer("adapter_model.bin"), "adapter_model.bin is a git-lfs pointer, not the weights"),
    "cut off": (lambda adapter: os.truncate(adapter / WEIGHTS, 999), "is damaged"),
    "weights elsewhere": (moved_out, f"{WEIGHTS} is a link out of the adapter folder: replace it"),
    "a folder for weights": (replaced(Path.mkdir), f"{WEIGHTS} is a folder: put the adapter's file itself there"),
    "a pipe for weights": (replaced(os.mkfifo), f"{WEIGHTS} is a pipe"),
    "a broken link for weights": (replaced(lambda path: path.symlink_to("no")), f"{WEIGHTS} is a link to nothing"),
    "a pipe for a config": (replaced(os.mkfifo, "adapter_config.json"), "adapter_config.json is a pipe"),
    "large numbers": (tensors(lambda t: [value.fill_(1e38) for value in t.values()]), "_proj.weight holds NaN or inf"),
    "a large alpha": (setting(lora_alpha=1e308), "too large for BF16, so check lora_alpha and r"),
    "another family": (trained_on("LlamaForCausalLM"), TRAINED.format("LlamaForCausalLM")),
    "a family's part": (trained_on("LlamaModel"), TRAINED.format("LlamaModel")),
    "a family with a longer name": (trained_on("Qwen3MoeForCausalLM"), TRAINED.format("Qwen3MoeForCausalLM")),
    "a family with a shorter name": (trained_on("Qwen2ForCausalLM"), TRAINED.format("Qwen2ForCausalLM")),
    "a family that is not ours": (trained_on("GPT2LMHeadModel"), TRAINED.format("GPT2LMHeadModel")),
    "a family of no library": (trained_on("GPT2LMHeadModel", None), TRAINED.format("GPT2LMHeadModel")),
    "a converted model": (
        trained_on("SwaaLlamaForCausalLM", "transformers_modules.x.modeling_swaa_llama"),
        TRAINED.format("SwaaLlamaForCausalLM"),
    ),
}


# Values in adapter_config.json, and what must stand there.
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    change, said = REFUSED[case]
    change(adapter)
    before = sorted(tmp_path.iterdir())
    line = refused(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--quiet")
    assert said in line and line.startswith(("adapter", "--lora: adapter"))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_other_sizes(dtype: torch.dtype, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    tensors(lambda t: t.update({key: value.to(dtype) for key, value in t.items()}))(adapter)
    result = run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output


def test_what_the_source_has_infinite_stays(adapter: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    weights[name][3, 4] = float("inf")
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    result = run(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert result.exit_code == 0, result.output
    assert load_file(tmp_path / "out/model.safetensors")[name][3, 4] == float("inf")


@pytest.mark.parametrize("tied", [False, True])
def test_overflow_in_embeddings(tied: bool, source_of: Make, tmp_path: Path) -> None:
    source = source_of(tied=tied, dtype=torch.float16)
    adapter = make_adapter(source, tmp_path / "adapter", modules_to_save=["lm_head"])
    # Too much for float16 only. Where the embeddings were tied, the source has no such tensor.
    tensors(lambda t: t.update({key: value + 1e6 for key, value in t.items() if "lm_head" in key}))(adapter)
    said = refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")
    assert "adapter: merged, lm_head.weight holds NaN or infinity: the numbers are too large for F16" in said


@pytest.mark.parametrize("name", ["ad\napter", "ad\x1b[31mapter", "ad\u2028apter"])
def test_names_of_several_lines(name: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    odd = adapter.rename(tmp_path / name)
    said = refused(source_of(), "--lora", odd, "--out", tmp_path / "out", "-q")
    assert said.startswith(f"--lora: the adapter's name {name!r} holds a line break or the like: rename the folder")


def test_a_base_of_several_lines(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    setting(base_model_name_or_path="x\n\x1b[31mERR")(adapter)
    said = run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run").stdout
    assert "Note     adapter names x\\n\\x1b[31mERR as its base" in said
    assert "\x1b" not in said


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


def test_a_lora_and_trained_tokens_on_tied_embeddings(source_of: Make, tmp_path: Path) -> None:
    options = {"target_modules": ["lm_head"], "trainable_token_indices": [1, 5]}
    adapter = make_adapter(source_of(), tmp_path / "adapter", **options)
    said = refused(source_of(tied=True), "--lora", adapter, "--out", tmp_path / "out", "-q")
    # Under transformers 4.57, peft doesn't even wrap such layers.
    ours, peft = "peft cannot merge what changes lm_head in two ways", "trainable_token_indices cannot be applied to"
    assert said.startswith(f"adapter: {ours}") or peft in said


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([1, 264], "trainable_token_indices holds 264, but"),
        ([1, -3], "trainable_token_indices holds -3, but"),
        ({"norm": [1]}, "trainable_token_indices names norm, which is no embedding of"),
    ],
    ids=str,
)
def test_tokens_that_are_not_there(tokens: Any, said: str, source_of: Make, tmp_path: Path) -> None:
    source = source_of()
    adapter = make_adapter(source, tmp_path / "adapter", trainable_token_indices=[1, 5])
    setting(trainable_token_indices=tokens)(adapter)
    assert said in refused(source, "--lora", adapter, "--out", tmp_path / "out", "-q")


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
    for size in ("big", "9" * 400, "9" * 5000, "1e400", "10000000TB"):
        assert "is not a size such as 5GB" in refused(*args, "--max-shard-size", size, code=2)


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
