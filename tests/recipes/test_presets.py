"""The presets: each loads, says its evidence, and is found by name."""

from pathlib import Path

import pytest

from swaa_convert.errors import SwaaError
from swaa_convert.layers import full_layers
from swaa_convert.presets import DEFAULT, NAMES, preset_text, read_preset, read_recipe
from swaa_convert.recipe import Recipe, recipe_from


@pytest.mark.parametrize("name", NAMES)
def test_preset_loads_and_cites(name: str) -> None:
    values, summary = read_preset(name)
    recipe = recipe_from(values)
    assert recipe.tuned == name.endswith("-lora")
    assert "arXiv 2512.10411" in preset_text(name)
    assert summary


def test_every_file_is_listed() -> None:
    folder = Path(preset_text.__code__.co_filename).parent
    assert {path.stem for path in folder.glob("*.yaml")} == set(NAMES)


def test_default() -> None:
    assert recipe_from(read_preset(DEFAULT)[0]) == Recipe(interleave="auto")


def test_efficiency_is_the_published_list() -> None:
    recipe = recipe_from(read_preset("efficiency")[0])
    assert full_layers(recipe, 36)[:3] == (1, 5, 9)


def test_a_file_or_a_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("window: 5\n")
    assert read_recipe(str(tmp_path / "mine.yaml")) == {"window": 5}
    assert read_recipe("quality")["window"] == 4096


def test_nearest_preset() -> None:
    with pytest.raises(SwaaError, match="did you mean 'quality'"):
        read_recipe("qualty")
