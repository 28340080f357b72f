"""`interleave: auto` says which evidence it used."""

from pathlib import Path
from typing import Any

import pytest

from swaa_convert.parity import best_parity
from swaa_convert.source import local_source

NAMES = [
    ("Qwen/Qwen3-4B", "odd", "Qwen3-4B"),
    ("Qwen/Qwen3-4B-Thinking-2507", "odd", "Qwen3-4B"),
    ("Qwen/Qwen3-30B-A3B", "even", "Qwen3-30B-A3B"),
    ("Qwen/Qwen3-30B-A3B-Instruct-2507", "even", "Qwen3-30B-A3B"),
    ("meta-llama/Llama-3.1-8B-Instruct", "even", "Llama-3.1-8B"),
    ("me/meta-llama-3.1-8b-tuned", "even", "Llama-3.1-8B"),
]
UNKNOWN = ["Qwen/Qwen3-8B", "Qwen/Qwen3-4BX", "meta-llama/Llama-3.1-80B", "me/qwen3-40b", ""]


@pytest.mark.parametrize(("name", "parity", "model"), NAMES)
def test_by_config(name: str, parity: str, model: str, tmp_path: Path) -> None:
    found = best_parity(local_source(tmp_path), {"_name_or_path": name})
    assert found.interleave == parity
    assert found.evidence == f"best for {model} in the paper; recognised by _name_or_path in config.json {name!r}"


@pytest.mark.parametrize("name", UNKNOWN)
def test_falls_back_to_odd_with_a_hint(name: str, tmp_path: Path) -> None:
    found = best_parity(local_source(tmp_path), {"_name_or_path": name})
    assert found.interleave == "odd"
    assert "try even too" in found.evidence


@pytest.mark.parametrize("base", ["Qwen/Qwen3-30B-A3B", ["x/y", "Qwen/Qwen3-30B-A3B"]])
def test_by_card(base: str | list[str], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nbase_model: {base}\n---\n# A model\n")
    found = best_parity(local_source(tmp_path), {})
    assert (found.interleave, "base_model in the source's card" in found.evidence) == ("even", True)


def test_by_folder_name(tmp_path: Path) -> None:
    (tmp_path / "Llama-3.1-8B").mkdir()
    found = best_parity(local_source(tmp_path / "Llama-3.1-8B"), {})
    assert (found.interleave, "the source's name" in found.evidence) == ("even", True)


@pytest.mark.parametrize(
    "card", ["", "# no front matter", "---\n[\n---\n", "---\n- 1\n---\n", "---\nbase_model: 3\n---\n"]
)
def test_unreadable_cards_say_nothing(card: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card)
    config: dict[str, Any] = {"_name_or_path": 3}
    assert best_parity(local_source(tmp_path), config).interleave == "odd"
