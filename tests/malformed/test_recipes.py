"""Recipe files from strangers."""

import os
from pathlib import Path

import pytest

from tests.malformed.damage import refuses

BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(ord("b"), ord("w")))
CASES = {
    "broken": (b"window: [", "line 1"),
    "empty": (b"", "a recipe is a mapping such as `window: 2048`"),
    "a list": (b"- window", "a recipe is a mapping"),
    "text": (b"balanced", "a recipe is a mapping"),
    "a number": (b"3", "a recipe is a mapping"),
    "two documents": (b"window: 5\n---\nwindow: 6", "line 2"),
    "an object of Python": (b"window: !!python/object/apply:os.system ['touch {mark}']", "tags such as"),
    "a Python name": (b"window: !!python/name:os.system", "tags such as"),
    "a plain tag": (b"window: !!int '3'", "tags such as"),
    "a tag of its own": (b"window: !x 3", "tags such as"),
    "an alias": (b"full_layers: &a [1]\nfa_decode_layers: *a", "line 2: aliases are not allowed"),
    "a bomb of aliases": (BOMB, "aliases are not allowed"),
    "an alias of itself": (b"window: &a [*a]", "aliases are not allowed"),
    "a merge": (b"<<: {window: 5}\nwindow: 6", "line 1: could not determine"),
    "nested lists": (b"window: " + b"[" * 50_000, "nested too deeply"),
    "nested mappings": (b"window: " + b"{a: " * 10_000, "nested too deeply"),
    "huge": (b"window: 5\n" + b"# \n" * 100_000, "larger than 64 KiB"),
    "a key twice": (b"window: 1\nwindow: 2", "line 2: the key 'window' stands twice"),
    "a list for a key": (b"? [1, 2]\n: 3", "no plain key"),
    "no UTF-8": (b"\xff\xfe", "not UTF-8 text"),
    "zero bytes": (b"window: 5\x00", "recipe.yaml: "),
    "a date that is none": (b"window: 2024-13-45", "recipe.yaml: "),
    "unknown key": (b"windw: 5", "unknown key 'windw': did you mean 'window'?"),
    "a number for a key": (b"3: 5", "unknown key 3"),
    "window of text": (b"window: wide", "'wide' is not a number of tokens"),
    "window of half": (b"window: 2.5", "window must be a whole number, not 2.5"),
    "window of yes": (b"window: yes", "window must be a whole number, not True"),
    "window of a list": (b"window: [1]", "window must be a whole number"),
    "window of nothing": (b"window: 0", "window must be 1 or more"),
    "window below nothing": (b"window: -5", "window must be 1 or more"),
    "window of infinity": (b"window: .inf", "window must be a whole number, not inf"),
    "layers of text": (b"full_layers: odd", "is not a list of layers"),
    "layers of lists": (b"full_layers: [[1]]", "full_layers must be a list of layer numbers"),
    "layers of a mapping": (b"full_layers: {a: 1}", "full_layers must be a list of layer numbers"),
    "layers below nothing": (b"full_layers: [-1]", "layers are counted from 0"),
    "a layer twice": (b"full_layers: [1, 1]", "names layer 1 twice"),
    "interleave of a number": (b"interleave: 3", "interleave must be one of"),
    "interleave of a date": (b"interleave: 2024-01-01", "interleave must be one of"),
    "interleave unknown": (b"interleave: od", "did you mean 'odd'?"),
    "switch of text": (b"fa_decode: maybe", "fa_decode must be true or false"),
    "switch of a number": (b"cot: 1", "cot must be true or false"),
    "rivals": (b"interleave: odd\nfull_layers: [1]", "exclude each other"),
    "keep_first null": (b"keep_first: null", "keep_first must be a whole number"),
    "a line break in a key": (b'"win\\ndow": 5', "unknown key 'win\\ndow'"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, source: Path, tmp_path: Path) -> None:
    data, said = CASES[case]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(data.replace(b"{mark}", bytes(tmp_path / "mark")))
    refuses(source, lambda source: None, "recipe.yaml: ", said, args=("--recipe", recipe))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a recipe is a mapping"),
        (Path.mkdir, "No such file"),
        (lambda path: path.symlink_to("/dev/zero"), "larger than 64 KiB"),
        (lambda path: path.symlink_to("/dev/null"), "a recipe is a mapping"),
    ],
)
def test_what_is_no_file(make: object, said: str, source: Path, tmp_path: Path) -> None:
    make(tmp_path / "recipe.yaml")  # type: ignore[operator]
    refuses(source, lambda source: None, "recipe.yaml", said, args=("--recipe", tmp_path / "recipe.yaml"))


def test_a_link_to_itself(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.symlink_to(recipe)
    refuses(source, lambda source: None, "no recipe file and no preset", args=("--recipe", recipe), code=2)
