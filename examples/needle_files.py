"""Writes the demo checkpoint's files: config, tokenizer, chat template and weights, as a Qwen3 repo has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from swaa_convert.demo.words import IDS, SPECIAL, TIGHT, VOCABULARY

ROPE_THETA = 100000.0

# Qwen3's own template, without tools: thinking unless enable_thinking is false, past thoughts left out.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def shape(width: int, layers: int) -> dict[str, Any]:
    """The model's dimensions, in the words of Qwen3Config."""
    return {
        "vocab_size": len(VOCABULARY),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "num_key_value_heads": max(1, width // 64),
        "head_dim": 32,
        "max_position_embeddings": 2304,
        "rope_theta": ROPE_THETA,
        # Newer transformers read this form, 4.57 the one above.
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": False,
        "eos_token_id": IDS["<|im_end|>"],
        "bos_token_id": IDS["<|endoftext|>"],
        "pad_token_id": IDS["<|endoftext|>"],
    }


def config(width: int, layers: int) -> dict[str, Any]:
    """config.json, complete for transformers 4.57 and 5."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **shape(width, layers),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": layers,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "sliding_window": None,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
    }


def generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": IDS["<|endoftext|>"],
        "do_sample": False,
        "eos_token_id": [IDS["<|im_end|>"], IDS["<|endoftext|>"]],
        "pad_token_id": IDS["<|endoftext|>"],
    }


def tokenizer() -> Tokenizer:
    """One token per word, line feed or mark; spaces between them are dropped and put back."""
    made = Tokenizer(models.WordLevel(dict(IDS), unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[A-Za-z]+|\n\n|\n|[^\sA-Za-z]"), "removed", invert=True)
    made.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(spaced, tight) for spaced, tight in TIGHT),
        ]
    )
    # As in Qwen3, the marks of thinking are tokens of their own but not hidden by skip_special_tokens.
    made.add_tokens([AddedToken(word, special=False, normalized=False) for word in SPECIAL if "think" in word])
    made.add_special_tokens(
        [AddedToken(word, special=True, normalized=False) for word in SPECIAL if "think" not in word]
    )
    return made


def tokenizer_config() -> dict[str, Any]:
    return {
        "add_bos_token": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        # Without it, transformers 4.57 adds token_type_ids, which the model refuses.
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 2304,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }


def write_repo(model: Any, folder: Path) -> None:
    """Write the whole repo, but for its card and licence, which stand there already."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = model.config.num_hidden_layers
    write_json(folder / "config.json", config(model.config.hidden_size, layers))
    write_json(folder / "generation_config.json", generation_config())
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    tokenizer().save(str(folder / "tokenizer.json"))
    save_weights(model.state_dict(), folder, layers)


def save_weights(state: dict[str, torch.Tensor], folder: Path, layers: int) -> None:
    """Two bfloat16 shards, the second from the middle layer on, and their index."""
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    late = ("lm_head", "model.norm", *(f"model.layers.{n}." for n in range(layers // 2, layers)))
    weight_map = {name: files[name.startswith(late)] for name in state}
    for file in files:
        shard = {name: state[name].detach().to("cpu", torch.bfloat16) for name in state if weight_map[name] == file}
        contiguous = {name: weight.contiguous() for name, weight in shard.items()}
        (folder / file).write_bytes(save(contiguous, metadata={"format": "pt"}))
    size = 2 * sum(weight.numel() for weight in state.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))},
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
