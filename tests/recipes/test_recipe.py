"""What a recipe refuses, in one line each, and how flags go on top of a file."""

from typing import Any

import pytest

from swaa_convert.errors import SwaaError
from swaa_convert.recipe import Recipe, override, recipe_from
from swaa_convert.sizes import parse_layers, parse_size, show_bytes

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"window": 0}, "window must be 1 or more"),
    ({"window": -5}, "window must be 1 or more"),
    ({"window": 1.5}, "window must be a whole number"),
    ({"window": True}, "window must be a whole number"),
    ({"window": "2q"}, "window: '2q' is not a number of tokens"),
    ({"keep_first": -1}, "keep_first must be 0 or more"),
    ({"keep_first": None}, "keep_first must be a whole number"),
    ({"fa_tail": -1}, "fa_tail must be 0 or more"),
    ({"fa_tail": 4, "fa_decode": False}, "fa_tail needs FA decode"),
    ({"fa_tail": 4, "fa_decode_layers": []}, "fa_tail needs FA decode"),
    ({"fa_decode": "yes"}, "fa_decode must be true or false"),
    ({"fa_decode": False, "fa_decode_layers": [1]}, "exclude each other"),
    ({"interleave": "odd", "full_layers": [1]}, "exclude each other"),
    ({"interleave": 3}, "interleave must be one of odd"),
    ({"interleave": False}, "interleave must be one of odd"),
    ({"full_layers": [1, -1]}, "counted from 0"),
    ({"full_layers": [1, 1]}, "names layer 1 twice"),
    ({"full_layers": ["a"]}, "list of layer numbers"),
    ({"full_layers": "1;2"}, "not a list of layers"),
    ({"full_layers": 3}, "list of layer numbers"),
    ({"full_layers": {"a": 1}}, "list of layer numbers"),
    ({"cot": 1}, "cot must be true or false"),
    ({"windw": 5}, "did you mean 'window'"),
    ({"sliding_window_size": 5}, "known: window"),
    ({"keepfirst": 5}, "did you mean 'keep_first'"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED)
def test_refused_in_one_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SwaaError) as error:
        recipe_from(values)
    assert said in error.value.message
    assert "\n" not in error.value.message


def test_plain_spellings() -> None:
    spelled = recipe_from({"window": "2k", "full_layers": "1, 5,9", "keep_first": "10"})
    assert spelled == Recipe(window=2048, full_layers=(1, 5, 9), keep_first=10)


def test_null_window_is_kept() -> None:
    assert recipe_from({"window": None}).window is None


@pytest.mark.parametrize(
    ("base", "flags", "expected"),
    [
        ({"interleave": "odd"}, {"full_layers": (1,)}, {"full_layers": (1,)}),
        ({"full_layers": [1]}, {"interleave": "even"}, {"interleave": "even"}),
        ({"fa_decode": False}, {"fa_decode_layers": (1,)}, {"fa_decode_layers": (1,)}),
        ({"fa_decode_layers": [1]}, {"fa_decode": False}, {"fa_decode": False}),
        ({"window": 1, "cot": True}, {"window": 2}, {"window": 2, "cot": True}),
    ],
)
def test_flags_displace(base: dict[str, Any], flags: dict[str, Any], expected: dict[str, Any]) -> None:
    assert override(base, flags) == expected


@pytest.mark.parametrize(("text", "value"), [("2048", 2048), ("2k", 2048), ("2K", 2048), ("1m", 1048576), ("0", 0)])
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "k", "2.5k", "-1", "2kk", "two", "9" * 5000])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a number of tokens"):
        parse_size(text)


def test_layer_lists() -> None:
    assert parse_layers("1,5,9") == parse_layers("[1, 5, 9]") == (1, 5, 9)
    assert parse_layers("") == ()


@pytest.mark.parametrize(("count", "shown"), [(5, "5 B"), (1500, "1.5 kB"), (7.6e9, "7.6 GB"), (3e12, "3.0 TB")])
def test_bytes(count: float, shown: str) -> None:
    assert show_bytes(count) == shown
