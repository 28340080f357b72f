"""The model card: whole cards as snapshots, and the promises that they keep."""

import re
import textwrap
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.card.cases import CARDS, COMMIT, FOLDER, LLAMA_8B, LLAMA_CARD, QWEN_4B, QWEN_30B, QWEN_CARD, card
from tests.support.sources import make_source


def front_matter(text: str) -> dict[str, Any]:
    return ModelCard(text).data.to_dict()


@pytest.mark.parametrize("name", CARDS)
def test_snapshots(name: str) -> None:
    assert CARDS[name]() == (FOLDER / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CARDS)
def test_nothing_is_left_unfilled(name: str) -> None:
    text = CARDS[name]()
    assert not re.search(r"\{%|%\}|\{#|None(?! of the)|True,|\n\n\n", text.replace("trust_remote_code=True", ""))
    assert text.endswith("```\n")


@pytest.mark.parametrize("name", CARDS)
def test_the_first_screen_says_what_it_is_and_how_to_load_it(name: str) -> None:
    """Forty lines."""
    shown = re.sub(r"\]\(\S+\)", "", CARDS[name]().split("---\n", 2)[2]).strip()
    lines = [part for line in shown.splitlines() for part in textwrap.wrap(line, 120) or [""]][:40]
    for said in ("from_pretrained(repo", "  prompt  ", "attention", "window: ", "tuned: "):
        assert [line for line in lines if said in line], said


def test_metadata_of_a_hub_source() -> None:
    assert front_matter(card("Qwen/Qwen3-4B", QWEN_4B, Recipe(), source_card=QWEN_CARD)) == {
        "license": "apache-2.0",
        "license_link": "https://huggingface.co/Qwen/Qwen3-4B/blob/main/LICENSE",
        "base_model": "Qwen/Qwen3-4B",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["swaa", "sliding-window-attention", "long-context"],
    }


def test_language_and_tags_are_carried_but_not_what_promises_a_server() -> None:
    found = front_matter(card("meta-llama/Llama-3.1-8B", LLAMA_8B, Recipe(), source_card=LLAMA_CARD))
    assert found["language"] == ["en", "de"] and found["license"] == "llama3.1"
    assert found["tags"][-2:] == ["facebook", "llama-3"]
    assert "extra_gated_prompt" not in found


ODD_CARDS = ["", "# No front matter", "---\n: [\n---\n", "---\n- a list\n---\n", "---\nlicense: [1]\ntags: 3\n---\n"]


@pytest.mark.parametrize("source_card", [None, *ODD_CARDS])
def test_a_source_card_without_usable_metadata(source_card: str | None) -> None:
    found = front_matter(card("Qwen/Qwen3-4B", QWEN_4B, Recipe(), source_card=source_card))
    assert "license" not in found and found["base_model"] == "Qwen/Qwen3-4B"


def test_windows_line_ends_and_a_mark_at_the_start() -> None:
    text = "\ufeff" + QWEN_CARD.replace("\n", "\r\n")
    assert front_matter(card("Qwen/Qwen3-4B", QWEN_4B, Recipe(), source_card=text))["license"] == "apache-2.0"


@pytest.mark.parametrize("source", ["/home/ann/models/my-llama", "/home/ann/models/my-llama/"])
def test_a_local_path_stays_private(source: str) -> None:
    text = card(source, LLAMA_8B, Recipe(), local=True)
    assert "ann" not in text and "# my-llama with" in text
    assert "base_model" not in front_matter(text)


ROWS = [
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(), "68.8 / 50.6"),
    ("Qwen/Qwen3-4B-Thinking-2507", QWEN_4B, Recipe(window=2000), "68.8 / 50.6"),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(full_layers=tuple(range(1, 36, 2))), "68.8 / 50.6"),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(keep_first=10, interleave="every:4+1"), "53.2 / 31.4"),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(keep_first=0, interleave="none", fa_decode=False), "3.2 / 11.0"),
    ("Qwen/Qwen3-30B-A3B", QWEN_30B, Recipe(keep_first=10, interleave="even"), "74.8 / 63.0"),
    ("meta-llama/Llama-3.1-8B-Instruct", LLAMA_8B, Recipe(window=4096, interleave="even"), "44.0"),
]
NO_ROWS = [
    ("Qwen/Qwen3-8B", QWEN_4B, Recipe()),
    ("Qwen/Qwen3-4B-Base", QWEN_4B, Recipe()),
    ("Qwen/Qwen3-4B", QWEN_30B, Recipe()),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(keep_first=64)),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(window=1024)),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(fa_tail=1)),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(tuned=True)),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(fa_decode_layers=(0, 2))),
    ("Qwen/Qwen3-4B", QWEN_4B, Recipe(window=None)),
    ("Qwen/Qwen3-4B-Instruct-2507", QWEN_4B, Recipe(cot=True)),
]


@pytest.mark.parametrize(("source", "shape", "recipe", "score"), ROWS)
def test_the_papers_row(source: str, shape: dict[str, int], recipe: Recipe, score: str) -> None:
    assert f"| this recipe | {score} |" in card(source, shape, recipe)


@pytest.mark.parametrize(("source", "shape", "recipe"), NO_ROWS)
def test_no_number_that_the_paper_does_not_have(source: str, shape: dict[str, int], recipe: Recipe) -> None:
    assert "paper reports" not in card(source, shape, recipe)


def test_the_recipe_is_yaml_that_makes_the_same_recipe() -> None:
    recipes = [Recipe(), Recipe(window=None), Recipe(full_layers=tuple(range(35)), fa_decode_layers=(1,))]
    for recipe, local in product(recipes, (True, False)):
        block = re.search(r"```yaml\n(.*?)```", card("Qwen/Qwen3-4B", QWEN_4B, recipe, local=local), re.DOTALL)
        assert block is not None
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in yaml.safe_load(block[1]).items()}
        assert Recipe(**values) == recipe


def test_the_command_names_the_commit() -> None:
    assert f"swaa-convert Qwen/Qwen3-4B --revision {COMMIT} \\\n    --recipe" in card(
        "Qwen/Qwen3-4B", QWEN_4B, Recipe()
    )


def test_the_loading_code_of_a_real_repo_runs(tmp_path: Path) -> None:
    out = convert_checkpoint(
        make_source(tmp_path / "source"), tmp_path / "card-q3", Recipe(window=16, keep_first=2), check=False
    )
    code = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("path/to/this/folder", str(out)), names)
    prompt = names["tokenizer"]("x" * 40, return_tensors="pt")["input_ids"]
    assert names["model"].generate(prompt, max_new_tokens=2, do_sample=False).shape == (1, 42)
