"""Tiny real checkpoints, written with the names and shapes that the families have on disk.

They need neither the network nor transformers, so every version reads the very same files. The weights are
random but not degenerate: scores have a standard deviation of about 4, so attention is peaky and a wrong
mask shows.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.support.layouts import layer_shapes, layout_of, matrix_shapes, norm_shapes
from tests.support.more_families import MORE_FAMILIES
from tests.support.tokenizers import write_tokenizer

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 264,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "pad_token_id": 256,
    "torch_dtype": "float32",
}
# What published Qwen configs carry although every layer attends fully.
QWEN = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 4}
HEAD_NORMS = tuple(f"{name}.weight" for name in ("q_norm", "k_norm", "query_layernorm", "key_layernorm"))
HEAD_NORMS += ("q_layernorm.weight", "k_layernorm.weight")
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "attention_bias": False, **QWEN},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], **QWEN},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 32,
        "attention_bias": False,
        **QWEN,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
    },
    "llama": {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "mlp_bias": False},
}


def make_config(family: str, **overrides: Any) -> dict[str, Any]:
    """The config.json of a tiny source; an override of `...` removes its key."""
    config = {**BASE, **(FAMILIES | MORE_FAMILIES)[family], "model_type": family, **overrides}
    return {key: value for key, value in config.items() if value is not ...}


def make_source(
    path: str | Path,
    family: str = "qwen3",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    tokenizer: bool = True,
    chat_template: bool = True,
    **config_overrides: Any,
) -> Path:
    """Write a tiny checkpoint of `family` into the folder `path` and return it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    config = make_config(family, **config_overrides)
    write_json(path / "config.json", config)
    write_json(path / "generation_config.json", {"eos_token_id": 258, "pad_token_id": 256})
    write_weights(path, make_weights(config, seed=seed, dtype=dtype), shards=shards)
    if tokenizer:
        write_tokenizer(path, chat_template=chat_template)
    return path


def make_weights(
    config: dict[str, Any], *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Random weights under the names that they have on disk."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(name, shape, generator).to(dtype).contiguous() for name, shape in weight_shapes(config)}


def weight_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each weight's name on disk and its shape."""
    vocab, hidden, layout = config["vocab_size"], config["hidden_size"], layout_of(config)
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in layer_shapes(config):
            yield f"model.layers.{layer}.{name}", shape
    if layout.final is not None:
        yield from norm_shapes(f"model.{layout.final}", config, layout)
    if not config["tie_word_embeddings"]:
        yield from matrix_shapes("lm_head", config.get("output_vocab_size") or vocab, hidden, layout)


def write_weights(path: Path, weights: dict[str, torch.Tensor], *, shards: int = 1) -> None:
    """One safetensors file, or several with an index."""
    if shards == 1:
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    files = [f"model-{n + 1:05d}-of-{shards:05d}.safetensors" for n in range(shards)]
    weight_map = {name: files[position * shards // len(names)] for position, name in enumerate(names)}
    for file in files:
        part = {name: weights[name] for name in names if weight_map[name] == file}
        save_file(part, path / file, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in weights.values())
    write_json(path / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(path: Path, value: Any) -> None:
    """JSON as transformers writes it."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith(HEAD_NORMS):
        return 2.0 + 0.1 * noise
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        return 1.0 + 0.1 * noise
    if name.endswith(("embed_tokens.weight", "bias")):
        return 0.3 * noise
    if ".act_fn." in name:
        return 0.8 + 0.1 * noise
    peaky = 2.0 if name.endswith(("q_proj.weight", "k_proj.weight", "qkv_proj.weight", "lm_head.weight")) else 1.0
    return noise * peaky * shape[-1] ** -0.5
