"""Assisted decoding: drafts are checked several at a time and taken back, and change nothing."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.embed import FAMILIES, Zoo, early_exit_is_broken, greedy, load, prompt, refused_if

RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "dense tail": {"fa_tail": 3},
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
lengths = pytest.mark.parametrize("length", [3, 12, 70])


def _repetitive(length: int) -> list[int]:
    """A prompt in which prompt lookup finds something."""
    return (prompt(6) * length)[:length]


@lengths
@recipes
def test_prompt_lookup(zoo: Zoo, recipe: str, length: int) -> None:
    ids = _repetitive(length)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 16)
    assert greedy(zoo.model(**RECIPES[recipe]), ids, 16, prompt_lookup_num_tokens=4) == [expected]


@lengths
@recipes
def test_self_assisted(zoo: Zoo, recipe: str, length: int) -> None:
    ids = prompt(length)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 16)
    with refused_if(early_exit_is_broken, NotImplementedError, "exit early"):
        assert greedy(zoo.model(**RECIPES[recipe]), ids, 16, assistant_early_exit=2) == [expected]


@lengths
@recipes
def test_assisted_by_the_source(zoo: Zoo, recipe: str, length: int) -> None:
    ids = prompt(length)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 16)
    assert greedy(zoo.model(**RECIPES[recipe]), ids, 16, assistant_model=zoo.stock()) == [expected]


@lengths
@recipes
def test_assisted_by_another_swaa_model(zoo: Zoo, recipe: str, length: int) -> None:
    ids = prompt(length)
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 16)
    for assistant in ("every layer windowed, no FA decode", "interleaved"):
        helper = zoo.model(**RECIPES[assistant])
        assert greedy(zoo.model(**RECIPES[recipe]), ids, 16, assistant_model=helper) == [expected]


@recipes
def test_the_source_assisted_by_an_swaa_model(zoo: Zoo, recipe: str) -> None:
    ids = prompt(70)
    assert greedy(zoo.stock(), ids, 16, assistant_model=zoo.model(**RECIPES[recipe])) == greedy(zoo.stock(), ids, 16)


@pytest.mark.parametrize("kind", ["copy", "other repo"])
@pytest.mark.parametrize("fa_decode", [True, False])
def test_a_twin_drafts_what_the_model_says(zoo: Zoo, tmp_path: Path, fa_decode: bool, kind: str) -> None:
    """An SWAA assistant sees the same prompt, of whatever repo it is: its own twin's drafts are all accepted."""
    model = zoo.model(fa_decode=fa_decode)
    if kind == "copy":
        twin = copy.deepcopy(model)
    else:
        twin = load(shutil.copytree(zoo.repo(fa_decode=fa_decode), tmp_path / f"twin_{fa_decode}"))
    ids = prompt(70)
    twin.generation_config.num_assistant_tokens = 4
    twin.generation_config.num_assistant_tokens_schedule = "constant"
    twin.generation_config.assistant_confidence_threshold = 0.0
    passes = []
    handle = model.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        assert greedy(model, ids, 15, assistant_model=twin) == [zoo.oracle(fa_decode=fa_decode).greedy(ids, 15)]
    finally:
        handle.remove()
    assert len(passes) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_families(zoo: Zoo, family: str) -> None:
    ids, model = _repetitive(70), zoo.model(family)
    expected = [zoo.oracle(family).greedy(ids, 12)]
    assert greedy(model, ids, 12, prompt_lookup_num_tokens=4) == expected
    assert greedy(model, ids, 12, assistant_model=zoo.stock(family)) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_self_assisted_families(zoo: Zoo, family: str) -> None:
    ids = prompt(70)
    expected = [zoo.oracle(family).greedy(ids, 12)]
    with refused_if(early_exit_is_broken, NotImplementedError, "exit early"):
        assert greedy(zoo.model(family), ids, 12, assistant_early_exit=2) == expected
