"""Converted repos as inspect sees them: config.json and swaa_recipe.yaml, without weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RECIPE = """\
window: 2048
keep_first: 100
interleave: odd
cot: true
source: {id: Qwen/Qwen3-4B, revision: 1cfa9a7208912126459214e8b04321603b3df60c}
tool: {name: swaa-convert, version: 0.1.0}
"""
MakeRepo = Callable[..., Path]


@pytest.fixture
def make_repo(tmp_path: Path) -> MakeRepo:
    """A function that writes a converted repo; keywords replace fields of its swaa_config."""

    def make(depth: int = 36, recipe: str | None = RECIPE, **swaa: Any) -> Path:
        folder = tmp_path / "q3-swaa"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(repo_config(depth, **swaa)))
        if recipe is not None:
            (folder / "swaa_recipe.yaml").write_text(recipe)
        return folder

    return make


def repo_config(depth: int = 36, **swaa: Any) -> dict[str, Any]:
    return {
        "architectures": ["SwaaQwen3ForCausalLM"],
        "model_type": "swaa_qwen3",
        "num_hidden_layers": depth,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_size": 2560,
        "torch_dtype": "bfloat16",
        "swaa_config": {
            "sliding_window_size": 2048,
            "keep_first": 100,
            "force_fa_decode": True,
            "non_sliding_layers": list(range(1, depth, 2)),
            "fa_tail": 0,
            "version": 1,
        }
        | swaa,
    }
