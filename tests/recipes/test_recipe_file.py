"""Recipes as YAML: what comes back is what went in, and nothing strange gets in."""

from pathlib import Path

import pytest

from swaa_convert.errors import SwaaError
from swaa_convert.recipe import Recipe, recipe_from
from swaa_convert.recipe_file import RECIPE_FILE, dump_recipe, parse_recipe, read_recipe_file
from swaa_convert.safe_yaml import MAX_BYTES

RECIPES = [
    Recipe(),
    Recipe(window=None),
    Recipe(window=64, keep_first=0, interleave="every:4+1", fa_tail=2, cot=True),
    Recipe(full_layers=(1, 5), fa_decode=False, tuned=True),
    Recipe(full_layers=(), fa_decode_layers=(0, 3)),
]
REFUSED = [
    (b"windw: 5", "unknown key 'windw': did you mean 'window'"),
    (b"window: 0", "window must be 1 or more"),
    (b"- 1\n- 2", "a recipe is a mapping"),
    (b"", "a recipe is a mapping"),
    (b"hello", "a recipe is a mapping"),
    (b"window: [", "line 1"),
    (b"window: 1\nwindow: 2", "stands twice"),
    (b"window: !!python/object/apply:os.system ['id']", "tags such as"),
    (b"window: !!int '3'", "tags such as"),
    (b"window: !x 3", "tags such as"),
    (b"full_layers: &a [1]\nfa_decode_layers: *a", "aliases are not allowed"),
    (b"? [1, 2]\n: 3", "no plain key"),
    (b"window: " + b"[" * 5000, "nested too deeply"),
    (b"\xff\xfe", "not UTF-8"),
    (b"window: 2024-13-45", "recipe.yaml: "),
    (b"window: 5\n" + b"#" * MAX_BYTES, "larger than 64 KiB"),
    (b"window: 5\n---\nwindow: 6", "recipe.yaml: "),
    (b"window: 5\x00", "recipe.yaml: "),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_round_trip(recipe: Recipe) -> None:
    text = dump_recipe(recipe, {"id": "org/name", "revision": "0" * 40})
    values, notes = parse_recipe(text.encode(), "recipe.yaml")
    assert recipe_from(values) == recipe
    assert notes["source"] == {"id": "org/name", "revision": "0" * 40}


@pytest.mark.parametrize(("data", "said"), REFUSED)
def test_refused_in_one_line(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(data)
    with pytest.raises(SwaaError) as error:
        read_recipe_file(tmp_path / "recipe.yaml")
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_says_how_to_make_it_again() -> None:
    text = dump_recipe(Recipe(), {"id": "org/name", "revision": "abc"})
    assert "swaa-convert org/name --revision abc --recipe swaa_recipe.yaml --out DIR" in text


def test_a_converted_folder_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / RECIPE_FILE).write_text("window: 7\n")
    assert read_recipe_file(tmp_path) == {"window": 7}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SwaaError, match="No such file"):
        read_recipe_file(tmp_path)
