"""The cards that are kept as snapshots. `python -m tests.card.cases` writes them anew: read the difference."""

from pathlib import Path
from typing import Any

from swaa_convert.card import render_card
from swaa_convert.layers import fa_decode_layers, full_layers
from swaa_convert.recipe import Recipe

FOLDER = Path(__file__).parent / "snapshots"
COMMIT = "1cfa9a7208912126459214e8b04321603b3df60c"
QWEN_CARD = """\
---
library_name: transformers
license: apache-2.0
license_link: https://huggingface.co/Qwen/Qwen3-4B/blob/main/LICENSE
pipeline_tag: text-generation
base_model:
- Qwen/Qwen3-4B-Base
---
# Qwen3-4B
"""
LLAMA_CARD = """\
---
language:
- en
- de
license: llama3.1
tags:
- facebook
- llama-3
- text-generation-inference
extra_gated_prompt: "Terms: accept them."
---
## Model Information
"""
QWEN_4B = {"depth": 36, "heads": 32, "kv_heads": 8, "hidden": 2560, "longest": 40960}
QWEN_30B = {"depth": 48, "heads": 32, "kv_heads": 4, "hidden": 2048, "longest": 262144}
LLAMA_8B = {"depth": 32, "heads": 32, "kv_heads": 8, "hidden": 4096, "longest": 131072}


def converted_config(
    recipe: Recipe, *, depth: int, heads: int, kv_heads: int, hidden: int, longest: int
) -> dict[str, Any]:
    """config.json of a converted repo, as far as a card reads it."""
    return {
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "hidden_size": hidden,
        "max_position_embeddings": longest,
        "torch_dtype": "bfloat16",
        "swaa_config": {
            "sliding_window_size": recipe.window,
            "keep_first": recipe.keep_first,
            "force_fa_decode": fa_decode_layers(recipe, depth),
            "non_sliding_layers": list(full_layers(recipe, depth)),
            "fa_tail": recipe.fa_tail,
            "version": 1,
        },
    }


def card(
    source: str,
    shape: dict[str, int],
    recipe: Recipe,
    *,
    source_card: str | None = None,
    local: bool = False,
    **options: Any,
) -> str:
    """The card of one conversion."""
    return render_card(
        source_id=source,
        source_revision=None if local else COMMIT,
        config=converted_config(recipe, **shape),
        recipe=recipe,
        source_card=source_card,
        **options,
    )


CARDS = {
    "paper_row": lambda: card("Qwen/Qwen3-4B", QWEN_4B, Recipe(), source_card=QWEN_CARD),
    "no_fa_decode": lambda: card(
        "Qwen/Qwen3-30B-A3B-Instruct-2507", QWEN_30B, Recipe(window=4096, interleave="every:4", fa_decode=False)
    ),
    "cot_and_tail": lambda: card(
        "meta-llama/Llama-3.1-8B-Instruct",
        LLAMA_8B,
        Recipe(interleave="even", fa_tail=100, cot=True),
        source_card=LLAMA_CARD,
        cot_files=["tokenizer_config.json"],
    ),
    "local_and_per_layer": lambda: card(
        "/home/ann/models/my-llama",
        LLAMA_8B,
        Recipe(full_layers=(0, 1, 7, 12, 15, 30), fa_decode_layers=(2, 3)),
        local=True,
    ),
    "no_window": lambda: card("Qwen/Qwen3-4B", QWEN_4B, Recipe(window=None, cot=True)),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, render in CARDS.items():
        (FOLDER / f"{name}.md").write_text(render(), encoding="utf-8")
