"""LoRA adapters of every kind, made and saved by peft itself, and what peft makes of them."""

import copy
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

# From version 5 on, the experts of a layer are fused in memory.
FUSES = int(transformers.__version__.split(".")[0]) >= 5
QV = ["q_proj", "v_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": QV},
    "rslora": {"target_modules": QV, "use_rslora": True, "r": 16, "lora_alpha": 32},
    "dora": {"target_modules": [*QV, "o_proj"], "use_dora": True},
    "patterns": {
        "target_modules": QV,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2},
        "alpha_pattern": {".*v_proj": 99},
    },
    "some_layers": {"target_modules": QV, "layers_to_transform": [1, 3]},
    "fan_in_fan_out": {"target_modules": QV, "fan_in_fan_out": True},
    "all_linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": r".*layers\.[02]\.self_attn\.(q|k)_proj"},
    "excluded": {"target_modules": QV, "exclude_modules": ["model.layers.2.self_attn.q_proj"]},
    "bias_all": {"target_modules": ["q_proj"], "bias": "all"},
    "bias_lora_only": {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "input_embeddings": {"target_modules": ["embed_tokens"]},
    "dora_embeddings": {"target_modules": ["embed_tokens", "k_proj"], "use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "saved_embeddings": {"target_modules": QV, "modules_to_save": ["lm_head", "embed_tokens"]},
    "saved_head": {"target_modules": QV, "modules_to_save": ["lm_head"]},
    "saved_norms": {"target_modules": QV, "modules_to_save": ["input_layernorm", "norm"]},
    "saved_mlp": {"target_modules": QV, "modules_to_save": ["mlp"]},
    "tokens": {"target_modules": QV, "trainable_token_indices": [1, 5]},
    "pissa": {"target_modules": QV, "init_lora_weights": "pissa"},
    "olora": {"target_modules": QV, "init_lora_weights": "olora"},
}
# Adapters that keep tied embeddings tied.
TIES: dict[str, dict[str, Any]] = {
    "tied_lora": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "tied_save": {"target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}
EXPERTS: dict[str, dict[str, Any]] = {
    "experts": {"target_modules": [], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    if FUSES
    else {"target_modules": ["gate_proj", "up_proj", "down_proj"]},
    "down": {"target_modules": QV, "target_parameters": ["mlp.experts.down_proj"]}
    if FUSES
    else {"target_modules": ["down_proj"]},
    "router": {"target_modules": QV, "target_parameters": ["mlp.gate.weight"]},
}


def make_adapter(source: Path, out: Path, seed: int = 0, **config: Any) -> Path:
    """Save a LoRA for the checkpoint `source` that has learnt something, in the folder `out`."""
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(source)
        torch.manual_seed(seed)
        options = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", "target_modules": QV, **copy.deepcopy(config)}
        wrapped = get_peft_model(model, LoraConfig(**options))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if any(part in name for part in ("lora_", "modules_to_save", "trainable_tokens", ".bias")):
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        wrapped.save_pretrained(str(out))
    return out


def make_other(source: Path, out: Path, config: Any) -> Path:
    """Save an adapter of another of peft's methods."""
    with _quiet():
        get_peft_model(AutoModelForCausalLM.from_pretrained(source), config).save_pretrained(str(out))
    return out


def merged_by_peft(source: Path, adapters: Iterable[Path], dtype: torch.dtype) -> Any:
    """The model that peft's load and merge make, adapter after adapter."""
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return model


def saved_by_peft(source: Path, adapters: Iterable[Path], dtype: torch.dtype, out: Path) -> Path:
    """The checkpoint that peft's load, merge and save make."""
    with _quiet():
        merged_by_peft(source, adapters, dtype).save_pretrained(out)
    return out


def stored(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same tensors with the same dtypes and bits."""
    assert actual.keys() == expected.keys()
    kind = {name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()}
    wrong = [name for name in actual if kind[name] != (actual[name].dtype, actual[name].shape)]
    wrong += [name for name in actual if not torch.equal(_bits(actual[name]), _bits(expected[name]))]
    assert wrong == []


def copied(folder: Path, out: Path) -> Path:
    """A copy to change at will."""
    shutil.copytree(folder, out)
    return out


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


class _quiet(warnings.catch_warnings):  # noqa: N801
    """peft warns about what these adapters do on purpose, and warnings are errors in tests."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        transformers.utils.logging.disable_progress_bar()
        return entered
