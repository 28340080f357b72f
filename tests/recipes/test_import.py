"""Settings lists of the reference code: read as recipes that mean the same, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from swaa_convert.recipe import Recipe, recipe_from
from swaa_convert.recipe_file import parse_recipe, read_recipe_file
from swaa_convert.reference_settings import entry_name, entry_yaml, read_settings
from tests.support.command import refused, run

ODD = list(range(1, 48, 2))
ENTRIES: list[tuple[dict[str, Any], Recipe, str]] = [
    ({}, Recipe(window=None, keep_first=0, interleave="none", fa_decode=False), "full"),
    (
        {"sliding_window_size": 2000, "keep_first": 100, "force_fa_decode": True, "non_sliding_layers": ODD},
        Recipe(window=2000, keep_first=100, full_layers=tuple(ODD), fa_decode=True),
        "window2000-sinks100-odd-fadecode",
    ),
    (
        {"sliding_window_size": 2000, "force_fa_decode": [0, 2], "non_sliding_layers": [1, 5, 9]},
        Recipe(window=2000, keep_first=0, full_layers=(1, 5, 9), fa_decode_layers=(0, 2)),
        "window2000-every4from1-fadecode",
    ),
    (
        {"sliding_window_size": 4000, "force_fa_decode": "true", "non_sliding_layers": ""},
        Recipe(window=4000, keep_first=0, interleave="none", fa_decode=True),
        "window4000-fadecode",
    ),
    (
        {"sliding_window_size": 4000, "force_fa_decode": [], "non_sliding_layers": "3, 4, 9"},
        Recipe(window=4000, keep_first=0, full_layers=(3, 4, 9), fa_decode=False),
        "window4000-full3",
    ),
]
REFUSED: dict[str, tuple[Any, str]] = {
    "unknown field": (
        [{"sliding_window": 5}],
        "entry 1: unknown field 'sliding_window': did you mean 'sliding_window_",
    ),
    "unknown key": ([{"swaa_config": {}, "models": []}], "entry 1: unknown field 'models': "),
    "second entry": ([{}, {"keep_first": -1}], "entry 2: keep_first must be 0 or more"),
    "window": ([{"sliding_window_size": "wide"}], "window: 'wide' is not a number"),
    "layers": ([{"non_sliding_layers": "1-5"}], "'1-5' is not a list of layers"),
    "no layers": ([{"non_sliding_layers": None}], "non_sliding_layers must be a list"),
    "decode": ([{"force_fa_decode": "maybe"}], "'maybe' is not a list of layers"),
    "decode null": ([{"force_fa_decode": None}], "force_fa_decode must be a list"),
    "entry": ([3], "entry 1 is no object"),
    "config": ([{"swaa_config": []}], "entry 1 is no object"),
    "models": ([{"swaa_config": {}, "model_list": "x"}], "model_list must be a list of names"),
    "empty": ([], "a settings file is a list of objects"),
    "number": (3, "a settings file is a list of objects"),
}


def settings(folder: Path, value: Any) -> Path:
    path = folder / "settings.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(("fields", "recipe", "name"), ENTRIES)
@pytest.mark.parametrize("wrapped", [True, False])
def test_entries(fields: dict[str, Any], recipe: Recipe, name: str, wrapped: bool, tmp_path: Path) -> None:
    value = {"swaa_config": fields, "model_list": ["/share/A\n# B"]} if wrapped else fields
    (entry,) = read_settings(settings(tmp_path, [value]))
    assert entry.recipe == recipe
    assert entry_name(entry) == f"01-{name}.yaml"
    assert recipe_from(parse_recipe(entry_yaml(entry, "settings.json").encode(), "it")[0]) == recipe


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    value, said = REFUSED[case]
    assert said in refused("recipes", "import", settings(tmp_path, value), "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"{", "not JSON"), (b'[{"keep_first": 1, "keep_first": 2}]', "stands twice"), (b"\xff", "UTF-8")],
)
def test_no_json(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(data)
    assert said in refused("recipes", "import", tmp_path / "settings.json")
    assert "give a settings file" in refused("recipes", "import", tmp_path / "nothing.json")
    (tmp_path / "settings.json").write_bytes(b" " * 2_000_000)
    assert "larger than 1 MiB" in refused("recipes", "import", tmp_path / "settings.json")


def test_a_folder_of_recipes(tmp_path: Path) -> None:
    path = settings(tmp_path, [fields for fields, _, _ in ENTRIES])
    assert run("recipes", "import", path, "--out", tmp_path / "out", "--tuned").exit_code == 0
    read = [recipe_from(read_recipe_file(file)) for file in sorted((tmp_path / "out").iterdir())]
    assert [recipe.window for recipe in read] == [recipe.window for _, recipe, _ in ENTRIES]
    assert {recipe.tuned for recipe in read} == {True}
    assert "exists already" in refused("recipes", "import", path, "--out", tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "settings.json"]


def test_one_entry_is_a_recipe_file(tmp_path: Path) -> None:
    path = settings(tmp_path, [fields for fields, _, _ in ENTRIES])
    said = run("recipes", "import", path, "--entry", "2").stdout
    assert recipe_from(parse_recipe(said.encode(), "it")[0]) == ENTRIES[1][1]
    assert "--entry 9" in refused("recipes", "import", path, "--entry", "9", code=2)


def test_lists_past_the_depth_need_clipping(qwen3_source: Path, tmp_path: Path) -> None:
    run("recipes", "import", settings(tmp_path, [ENTRIES[1][0]]), "--out", tmp_path / "out")
    (recipe,) = (tmp_path / "out").iterdir()
    convert = (qwen3_source, "--recipe", recipe, "--out", tmp_path / "q3", "--dry-run")
    assert "--clip-layers drops" in refused(*convert, "--quiet")
    assert run(*convert, "--clip-layers").exit_code == 0
