"""An adapter's recipe is the default, a repo's recipe names its adapters, and both are said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.merge.conftest import Make
from tests.support.adapters import copied
from tests.support.command import refused, run, tree
from tests.support.sources import write_json

SWAA = {
    "sliding_window_size": 9,
    "keep_first": 3,
    "force_fa_decode": False,
    "non_sliding_layers": [0, 2],
    "fa_tail": 0,
    "version": 1,
}
YAML = "window: 9\nkeep_first: 3\nfull_layers: [0, 2]\nfa_decode: false\n"


@pytest.fixture
def adapter(source_of: Make, adapter_of: Make, tmp_path: Path) -> Path:
    """An adapter of the test's own."""
    return copied(adapter_of(source_of()), tmp_path / "adapter")


def carry(adapter: Path, how: str) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    if how == "adapter_config.json":
        write_json(adapter / how, {**config, "swaa_config": SWAA})
    elif how == "swaa_recipe.yaml":
        (adapter / how).write_text(YAML)
    else:
        write_json(adapter / how, SWAA if how == "swaa_config.json" else {"swaa_config": SWAA})


def swaa_config(repo: Path) -> Any:
    return json.loads((repo / "config.json").read_text())["swaa_config"]


HOWS = ["adapter_config.json", "config.json", "swaa_config.json", "swaa_recipe.yaml"]


@pytest.mark.parametrize("how", HOWS)
def test_the_adapters_recipe_is_the_default(how: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    carry(adapter, how)
    result = run(source_of(), "--lora", adapter, "--out", tmp_path / "out")
    assert result.stdout.startswith(f"Recipe   adapter's {how}\n") and "Warning" not in result.stderr
    assert swaa_config(tmp_path / "out") == SWAA
    assert yaml.safe_load((tmp_path / "out/swaa_recipe.yaml").read_text())["tuned"] is True


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("option", "value", "window"), [("--window", "8", 8), ("--recipe", "quality", 4096)])
def test_another_recipe_is_warned_about(
    how: str, option: str, value: str, window: int, source_of: Make, adapter: Path, tmp_path: Path
) -> None:
    carry(adapter, how)
    result = run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run", option, value)
    assert f"Warning: sliding_window_size is {window}, but adapter's {how} says 9" in result.stderr


def test_quiet_warns_nobody(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    carry(adapter, "swaa_recipe.yaml")
    assert run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "-q", "--window", "8").output == ""


def test_a_recipe_that_leaves_the_layers_open(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    (adapter / "swaa_recipe.yaml").write_text("window: 9\ninterleave: auto\n")
    assert "Warning" not in run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run").stderr


def test_a_recipe_for_another_model_is_warned_about(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    (adapter / "swaa_recipe.yaml").write_text("window: 9\nfull_layers: [30, 40]\n")
    args = (source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run")
    assert "full_layers names layer 30" in refused(*args, "--quiet")
    assert "Warning: adapter's swaa_recipe.yaml is not for this model" in run(*args, "--recipe", "quality").stderr


def test_the_last_adapters_recipe_counts(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    first = copied(adapter, tmp_path / "first")
    carry(adapter, "swaa_recipe.yaml")
    (first / "swaa_recipe.yaml").write_text("window: 5\n")
    result = run(source_of(), "--lora", first, "--lora", adapter, "--out", tmp_path / "out", "--dry-run")
    assert "Window   9 tokens" in result.stdout
    assert "sliding_window_size is 9, but first's swaa_recipe.yaml says 5" in result.stderr


def test_dry_run_says_what_is_merged(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    result = run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run")
    for said in ("Merge    adapter (LoRA, rank 4)", "Merge    into 8 modules", "Rewrite  model-00001-of-00003"):
        assert said in result.stdout
    assert not (tmp_path / "out").exists()


def test_dry_run_refuses_what_a_run_refuses(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", {**config, "r": 5})
    assert "but the model needs" in refused(source_of(), "--lora", adapter, "--out", tmp_path / "o", "--dry-run", "-q")


def test_the_repo_says_what_was_merged(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--recipe", "balanced-lora")
    card = (tmp_path / "out/README.md").read_text()
    assert "Merged into the source's weights, by peft, is the LoRA adapter `adapter`." in card
    assert "--lora adapter \\\n    --recipe" in card and "byte for byte, and which tokens" in card
    (named,) = yaml.safe_load((tmp_path / "out/swaa_recipe.yaml").read_text())["lora"]
    assert named["name"] == "adapter" and len(named["sha256"]) == 64
    manifest = json.loads((tmp_path / "out/swaa_manifest.json").read_text())
    assert manifest["merged"]["adapters"] == [named] and len(manifest["merged"]["tensors"]) == 8


def test_the_recipe_makes_the_repo_again(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(source_of(), "--lora", adapter, "--out", one, "-q", "--window", "8")
    args = (source_of(), "--recipe", one, "--out", two, "-q")
    assert f"{one} was made with the local adapter adapter: give its folder as --lora" in refused(*args)
    assert run(*args, "--lora", adapter).exit_code == 0
    assert tree(one) == tree(two)


def test_without_the_recipes_adapters(source_of: Make, adapter: Path, tmp_path: Path) -> None:
    run(source_of(), "--lora", adapter, "--out", tmp_path / "one", "-q")
    run(source_of(), "--recipe", tmp_path / "one", "--no-lora", "--out", tmp_path / "two", "-q")
    shards = [path.name for path in source_of().glob("model-*")]
    assert all((tmp_path / "two" / n).read_bytes() == (source_of() / n).read_bytes() for n in shards)


def test_a_broken_list_of_adapters(source_of: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("window: 8\nlora: 3\n")
    said = refused(source_of(), "--recipe", tmp_path / "mine.yaml", "--out", tmp_path / "out", "-q")
    assert "lora must be a list of adapters" in said
