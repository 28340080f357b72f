"""Which layers keep full attention, for every word and list."""

import pytest

from swaa_convert.errors import SwaaError
from swaa_convert.layers import clipped, fa_decode_layers, full_layers
from swaa_convert.recipe import Recipe

WORDS = [
    ("odd", 6, (1, 3, 5)),
    ("even", 6, (0, 2, 4)),
    ("even", 5, (0, 2, 4)),
    ("none", 6, ()),
    ("every:1", 3, (0, 1, 2)),
    ("every:4", 10, (0, 4, 8)),
    ("every:4+0", 10, (0, 4, 8)),
    ("every:4+1", 12, (1, 5, 9)),
    ("every:3+2", 9, (2, 5, 8)),
    ("every:100", 4, (0,)),
    ("even", 1, (0,)),
]
BAD_WORDS = [
    ("od", "did you mean 'odd'"),
    ("Odd", "did you mean 'odd'"),
    ("evn", "did you mean 'even'"),
    ("every4", "did you mean 'every:N'"),
    ("every:", "did you mean 'every:N'"),
    ("every:-1", "did you mean 'every:N'"),
    ("every:0", "step must be 1 or more"),
    ("every:4+4", "0 to 3"),
    ("every:4+9", "0 to 3"),
    ("", "known: odd"),
]


@pytest.mark.parametrize(("word", "depth", "expected"), WORDS)
def test_interleave(word: str, depth: int, expected: tuple[int, ...]) -> None:
    assert full_layers(Recipe(interleave=word), depth) == expected


@pytest.mark.parametrize(("word", "said"), BAD_WORDS)
def test_bad_interleave_names_the_nearest(word: str, said: str) -> None:
    with pytest.raises(SwaaError, match=said.replace("+", r"\+")):
        Recipe(interleave=word)


def test_default_is_odd() -> None:
    assert Recipe().interleave == "odd"
    assert Recipe(full_layers=(0,)).interleave is None


def test_list_is_sorted() -> None:
    assert full_layers(Recipe(full_layers=(5, 1)), 6) == (1, 5)
    assert full_layers(Recipe(full_layers=()), 6) == ()


def test_interleave_past_the_depth() -> None:
    with pytest.raises(SwaaError, match="starts at layer 1, but the model has layers 0 to 0"):
        full_layers(Recipe(interleave="odd"), 1)


def test_list_past_the_depth() -> None:
    published = Recipe(full_layers=tuple(range(1, 48, 2)))
    with pytest.raises(SwaaError, match="names layer 37, but the model has layers 0 to 35 .--clip-layers"):
        full_layers(published, 36)
    assert full_layers(clipped(published, 36)[0], 36) == tuple(range(1, 36, 2))


def test_auto_must_be_resolved_first() -> None:
    with pytest.raises(SwaaError, match="must be resolved"):
        full_layers(Recipe(interleave="auto"), 4)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), True),
        (Recipe(fa_decode=False), False),
        (Recipe(fa_decode_layers=(2, 0)), [0, 2]),
        (Recipe(fa_decode_layers=()), []),
    ],
)
def test_fa_decode(recipe: Recipe, expected: bool | list[int]) -> None:
    assert fa_decode_layers(recipe, 4) == expected


def test_fa_decode_past_the_depth() -> None:
    with pytest.raises(SwaaError, match="fa_decode_layers names layer 4"):
        fa_decode_layers(Recipe(fa_decode_layers=(1, 4)), 4)
    assert fa_decode_layers(clipped(Recipe(fa_decode_layers=(1, 4)), 4)[0], 4) == [1]
