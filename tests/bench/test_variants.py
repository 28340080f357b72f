"""What `--recipes` means."""

from pathlib import Path

import pytest

from swaa_convert.bench.subject import cut, open_subject
from swaa_convert.bench.variants import describe, parse_recipes, settle_variants
from swaa_convert.errors import SwaaUsageError
from swaa_convert.presets import read_preset
from swaa_convert.recipe import Recipe, recipe_from


def recipe(text: str) -> Recipe:
    [asked] = parse_recipes(text)
    assert asked.recipe is not None
    return asked.recipe


def test_presets_and_files_have_the_names_that_were_typed(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("window: 5\n")
    quality, mine = parse_recipes(f"quality, {tmp_path / 'mine.yaml'}")
    assert (quality.name, mine.name) == ("quality", str(tmp_path / "mine.yaml"))
    assert quality.recipe == recipe_from(read_preset("quality")[0])
    assert mine.recipe is not None and mine.recipe.window == 5


def test_inline_recipes_start_from_the_default_or_from_what_stands_first() -> None:
    assert recipe("keep_first=7") == recipe_from(read_preset("balanced")[0] | {"keep_first": 7})
    assert recipe("efficiency+window=1k") == recipe_from(read_preset("efficiency")[0] | {"window": 1024})


def test_inline_values_are_those_of_recipe_files() -> None:
    made = recipe("window=2k+keep_first=128+interleave=every:4+1+fa_decode=off")
    assert made == Recipe(window=2048, keep_first=128, interleave="every:4+1", fa_decode=False)
    assert recipe("window=null").window is None


def test_lists_in_brackets_hold_commas_and_displace_their_rival() -> None:
    listed, other = parse_recipes("full_layers=[1,3]+fa_decode_layers=[0,2],efficiency")
    assert listed.recipe is not None
    assert (listed.recipe.full_layers, listed.recipe.interleave, listed.recipe.fa_decode_layers) == (
        (1, 3),
        None,
        (0, 2),
    )
    assert other.name == "efficiency"


def test_labels() -> None:
    names = [asked.name for asked in parse_recipes("slow:quality,fast:window=8+interleave=every:2,interleave=every:2")]
    assert names == ["slow", "fast", "interleave=every:2"]


WRONG = [
    ("qualty", "no recipe file and no preset 'qualty': did you mean 'quality'?"),
    ("widow=3", "unknown recipe key 'widow': did you mean 'window'?"),
    ("window=0", "window must be 1 or more"),
    ("window=3+window=4", "set twice"),
    ("interleave=odd+full_layers=[1]", "set twice, or beside"),
    ("window=[", "line 1"),
    ("full_layers=1,5,9", "stands in brackets, as in full_layers=[1,…]"),
    ("quality,quality", "'quality' stands twice"),
    ("full attention:quality", "'full attention' stands twice"),
    ("quality,", "a recipe is empty: take out the comma"),
    ("", "a recipe is empty"),
    ("x:own+window=8", "own takes no +KEY=VALUE"),
    ("slow:", "no recipe file"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_refused(text: str, said: str) -> None:
    with pytest.raises(SwaaUsageError) as error:
        parse_recipes(text)
    assert said in error.value.message and "\n" not in error.value.message


def test_a_converted_repo_is_measured_as_it_is(repo: Path) -> None:
    subject = open_subject(str(repo))
    [own] = settle_variants(None, subject)
    assert (own.name, own.swaa) == ("bench_repo", subject.swaa)
    both = settle_variants(parse_recipes("own,efficiency"), subject)
    assert both[0].swaa == own.swaa and both[1].swaa["sliding_window_size"] == 2048


def test_a_source_is_measured_under_the_default_preset(qwen3_source: Path) -> None:
    subject = open_subject(str(qwen3_source))
    [variant] = settle_variants(None, subject)
    assert (variant.name, variant.swaa["non_sliding_layers"]) == ("balanced", [1, 3])
    assert variant.note is not None and "odd" in variant.note
    with pytest.raises(SwaaUsageError, match="not a converted repo"):
        settle_variants(parse_recipes("own"), subject)


def test_fewer_layers_cut_every_list(repo: Path, qwen3_source: Path) -> None:
    subject = cut(open_subject(str(repo)), 3)
    assert subject.layers == 3 and subject.swaa is not None and subject.swaa["non_sliding_layers"] == [1]
    [variant] = settle_variants(parse_recipes("full_layers=[1,3]"), cut(open_subject(str(qwen3_source)), 3))
    assert variant.swaa["non_sliding_layers"] == [1] and variant.note == "layers past the last are left out: 3"
    with pytest.raises(SwaaUsageError, match="--layers 5: .* has 4"):
        cut(subject, 5)


def test_words() -> None:
    swaa = {"sliding_window_size": 8, "keep_first": 2, "non_sliding_layers": [1], "force_fa_decode": [0], "fa_tail": 3}
    assert describe(swaa, 4) == "window 8, sinks 2, 1 of 4 layers full, FA decode in 1, tail 3"
    assert describe(None, 4) == describe({"sliding_window_size": None}, 4) == "every layer full"
