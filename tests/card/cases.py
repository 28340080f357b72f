"""The cards that are kept as snapshots. `python -m tests.card.cases` writes them anew: read the difference."""

from pathlib import Path
from typing import Any

from swaa_convert.card import render_card
from swaa_convert.layers import fa_decode_layers, full_layers
from swaa_convert.measured import Measured
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
OTHER_CARD = """\
---
license: other
license_name: ann-research
license_link: LICENSE.txt
language: en
tags: custom
---
"""
MEASURED = Measured(
    "NVIDIA H100 80GB HBM3, CUDA 12.8, torch 2.11.0, transformers 5.17.0, swaa-convert 0.1.0",
    "3 runs of 128 new tokens, batch 1, bfloat16, backend sdpa",
    [
        ["32,768", "1.19 s", "970 ms ±1%", "1.22x", "45.0 ms", "45.1 ms", "1.00x", "4.50 GiB", "2.40 GiB"],
        ["131,072", "11.7 s", "7.39 s", "1.58x", "n/a", "n/a", "n/a", "18.0 GiB", "9.15 GiB"],
    ],
)
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
        version="0.1.0",
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
    "paper_row_of_a_moe": lambda: card("Qwen/Qwen3-30B-A3B", QWEN_30B, Recipe(keep_first=10, interleave="even")),
    "paper_row_of_llama": lambda: card(
        "meta-llama/Llama-3.1-8B-Instruct",
        LLAMA_8B,
        Recipe(window=4096, interleave="even"),
        source_card=LLAMA_CARD,
    ),
    "naive": lambda: card(
        "Qwen/Qwen3-4B-Thinking-2507", QWEN_4B, Recipe(keep_first=0, interleave="none", fa_decode=False)
    ),
    "one_adapter": lambda: card(
        "Qwen/Qwen3-4B",
        QWEN_4B,
        Recipe(tuned=True),
        source_card=QWEN_CARD,
        adapters=[("ann/swaa-lora", "ab" * 20)],
    ),
    "two_adapters": lambda: card(
        "Qwen/Qwen3-4B",
        QWEN_4B,
        Recipe(keep_first=0, fa_decode=False, tuned=True),
        adapters=[("ann/swaa-lora", "ab" * 20), ("my-lora", None)],
    ),
    "tuned_elsewhere": lambda: card("ann/Qwen3-4B-swaa-tuned", QWEN_4B, Recipe(tuned=True)),
    "named_licence": lambda: card("ann/Qwen-tuned", QWEN_4B, Recipe(window=1024), source_card=OTHER_CARD),
    "always_thinks": lambda: card("Qwen/Qwen3-4B-Thinking-2507", QWEN_4B, Recipe(cot=True, fa_tail=1)),
    "measured": lambda: card("Qwen/Qwen3-4B", QWEN_4B, Recipe(fa_decode=False), measured=MEASURED),
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, render in CARDS.items():
        (FOLDER / f"{name}.md").write_text(render(), encoding="utf-8")
