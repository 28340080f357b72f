"""What is Phi-3's alone: RoPE that changes with the length, a window past every position, code in the repo."""

import json
from pathlib import Path
from typing import Any

import pytest

from swaa_convert.convert import convert_checkpoint
from swaa_convert.families import families
from swaa_convert.recipe import Recipe
from swaa_convert.resources import shipped_module
from tests.support.command import refused
from tests.support.embed import CACHE, Zoo, greedy, one, pad_left, prompt
from tests.support.sources import make_source

PHI3 = next(family for family in families() if family.model_type == "phi3")
SWITCHING: dict[str, Any] = {"original_max_position_embeddings": 64}
COPIES = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
RECIPES: dict[str, dict[str, Any]] = {"interleaved": {}, "no FA decode": {"full_layers": (), "fa_decode": False}}
recipes = pytest.mark.parametrize("recipe", RECIPES)


@pytest.mark.parametrize("length", [40, 60, 63, 64, 65, 90])
@recipes
def test_generating_past_the_length_where_rope_changes(zoo: Zoo, recipe: str, length: int) -> None:
    """Stock Phi-3 goes on from the newest token alone there, in 5.0 and 5.12 as in others."""
    ids, options = prompt(length), {"config": SWITCHING, **RECIPES[recipe]}
    assert greedy(zoo.model("phi3", **options), ids, 12) == [zoo.oracle("phi3", **options).greedy(ids, 12)]


@recipes
def test_a_batch_past_that_length(zoo: Zoo, recipe: str) -> None:
    """Unscaled RoPE: the stock model begins anew all the same."""
    options: dict[str, Any] = {"config": {**SWITCHING, "rope_scaling": None}, **RECIPES[recipe]}
    rows, oracle = [prompt(length, length) for length in (5, 30, 60)], zoo.oracle("phi3", **options)
    assert greedy(zoo.model("phi3", **options), pad_left(rows), 12) == [oracle.greedy(row, 12) for row in rows]


@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}], ids=str)
@recipes
def test_a_prompt_past_that_length_keeps_its_cache(zoo: Zoo, recipe: str, options: dict[str, Any]) -> None:
    ids, config = (prompt(6) * 20)[:90], {"config": SWITCHING, **RECIPES[recipe]}
    actual = greedy(zoo.model("phi3", **config), ids, 12, **options)
    assert [row[:12] for row in actual] == [zoo.oracle("phi3", **config).greedy(ids, 12)]


@pytest.mark.parametrize(
    ("length", "options"), [(90, {"prefill_chunk_size": 9}), (60, {"prompt_lookup_num_tokens": 3})], ids=str
)
def test_chunks_and_drafts_across_that_length_are_refused(zoo: Zoo, length: int, options: dict[str, Any]) -> None:
    model = zoo.model("phi3", config=SWITCHING)
    with pytest.raises(NotImplementedError, match="across 64 tokens, where LongRoPE changes"):
        greedy(model, prompt(length), 12, **options)
    assert greedy(model, prompt(50), 12, **options) == [zoo.oracle("phi3", config=SWITCHING).greedy(prompt(50), 12)]


@pytest.mark.parametrize("family", ["phi3", "mistral", "starcoder2"])
def test_a_window_past_every_position_is_none(zoo: Zoo, family: str) -> None:
    options: dict[str, Any] = {"config": {"sliding_window": 8192}, "full_layers": (1,), "fa_decode": False}
    generating: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True}
    output = zoo.model(family, **options).generate(one(prompt(60)), **generating)
    assert output.sequences[0, 60:].tolist() == zoo.oracle(family, **options).greedy(prompt(60), 5)
    assert [layer.keys.shape[2] for layer in output[CACHE].layers] == [10, 64, 10, 10]


def test_the_repo_keeps_the_sources_window(zoo: Zoo) -> None:
    assert json.loads((zoo.repo("phi3") / "config.json").read_text())["sliding_window"] == 8192


@pytest.mark.parametrize("more", [{}, {"AutoTokenizer": "Xenova/gpt-4o"}], ids=["code", "and a tokenizer"])
def test_the_publishers_copy_of_stock_code_is_left_out(tmp_path: Path, more: dict[str, str]) -> None:
    source = make_source(tmp_path / "source", "phi3", auto_map={**COPIES, **more})
    for name in ("configuration_phi3.py", "modeling_phi3.py"):
        (source / name).write_text("raise RuntimeError")
    repo = convert_checkpoint(source, tmp_path / "repo", Recipe(window=8))
    assert [path.name for path in repo.glob("*_phi3.py")] == ["modeling_swaa_phi3.py"]
    assert set(json.loads((repo / "config.json").read_text())["auto_map"].values()) == set(PHI3.auto_map.values())


@pytest.mark.parametrize("reference", ["modeling_mine.Phi3ForCausalLM", "me/it--modeling_phi3.Phi3ForCausalLM", 3])
def test_other_code_is_refused(tmp_path: Path, reference: object) -> None:
    source = make_source(tmp_path / "source", "phi3", auto_map={**COPIES, "AutoModelForCausalLM": reference})
    assert "needs its own remote code" in refused(source, "--out", tmp_path / "out", "--quiet")


NEWER = {"rope_theta": 5.0, "partial_rotary_factor": 0.5, "rope_type": "default"}
LONG = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
OLDER = [
    (NEWER, {"rope_theta": 5.0, "partial_rotary_factor": 0.5, "rope_scaling": None}),
    (
        {"rope_theta": 5.0, **LONG, "rope_type": "longrope", "original_max_position_embeddings": 64},
        {"rope_theta": 5.0, "rope_scaling": LONG, "original_max_position_embeddings": 64},
    ),
    (
        {"rope_theta": 5.0, "rope_type": "yarn", "original_max_position_embeddings": 64},
        {"rope_theta": 5.0, "rope_scaling": {"rope_type": "yarn", "original_max_position_embeddings": 64}},
    ),
]


@pytest.mark.parametrize(("newer", "older"), OLDER)
def test_rope_as_older_versions_read_it(newer: dict[str, Any], older: dict[str, Any]) -> None:
    assert shipped_module("swaa_rope").older_rope(newer) == older
