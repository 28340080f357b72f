"""Ways to damage a tiny source, and what must come of it."""

import json
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.command import refused
from tests.support.sources import make_weights, write_json, write_weights

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

Change = Callable[[Path], object]
# What is done to a source, and all that the one line must say.
Cases = dict[str, tuple[Any, ...]]


def refuses(source: Path, change: Change, *said: str, args: tuple[str | Path, ...] = (), code: int = 1) -> None:
    """The damaged source is refused in one line that says all of `said`, and nothing on the disk changes."""
    change(source)
    before = state(source.parent)
    message = refused(source, "--out", source.parent / "out", "--quiet", *args, code=code)
    assert [text for text in said if text not in message] == [], message
    assert len(message) < 1200
    assert state(source.parent) == before


def state(folder: Path) -> dict[str, object]:
    """Everything below a folder, whatever it is: mode, and a file's bytes or a link's target."""
    found: dict[str, object] = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            mode = path.lstat().st_mode
            link = os.readlink(path) if stat.S_ISLNK(mode) else None
            small = stat.S_ISREG(mode) and path.lstat().st_size < 10**8
            found[str(path)] = (mode, link, path.read_bytes() if small else path.lstat().st_size)
    return found


def config(**changes: Any) -> Change:
    """Change keys of config.json; `...` removes one."""

    def change(source: Path) -> None:
        values = {**json.loads((source / "config.json").read_text()), **changes}
        write_json(source / "config.json", {key: value for key, value in values.items() if value is not ...})

    return change


def write(name: str, data: bytes | dict[str, Any]) -> Change:
    """Put this into a file of the source."""

    def change(source: Path) -> None:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())

    return change


def without(*names: str) -> Change:
    def change(source: Path) -> None:
        for name in names:
            (source / name).unlink()

    return change


def only(*names: str, data: bytes = b"{}") -> Change:
    """Nothing but these files."""

    def change(source: Path) -> None:
        for path in source.iterdir():
            path.unlink()
        for name in names:
            (source / name).write_bytes(data)

    return change


def huge(name: str, size: int = 400_000_000) -> Change:
    """A file that claims many bytes and takes no room."""
    return lambda source: os.truncate(source / name, size)


def weights_as(name: str) -> Change:
    return lambda source: (source / SINGLE).rename(source / name)


def cut(name: str, count: int) -> Change:
    """Drop the last bytes of a file."""
    return lambda source: os.truncate(source / name, (source / name).stat().st_size - count)


def header(text: bytes | str, length: int | None = None, data: int = 0) -> Change:
    """A safetensors file with this header, its length perhaps a lie, before this many bytes."""
    encoded = text.encode() if isinstance(text, str) else text
    size = len(encoded) if length is None else length
    return write(SINGLE, struct.pack("<Q", size) + encoded + bytes(data))


def entries(data: int = 0, **tensors: tuple[Any, Any, Any]) -> Change:
    """A safetensors file with these tensors: dtype, shape, offsets."""
    named = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, (dtype, shape, offsets) in tensors.items()
    }
    return header(json.dumps(named), data=data)


def tensors(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Other weights than config.json asks for."""

    def change(source: Path) -> None:
        weights = make_weights(json.loads((source / "config.json").read_text()))
        edit(weights)
        write_weights(source, weights)

    return change


def sharded(source: Path) -> dict[str, Any]:
    """Rewrite the weights in two shards and return the index."""
    (source / SINGLE).unlink()
    write_weights(source, make_weights(json.loads((source / "config.json").read_text())), shards=2)
    found: dict[str, Any] = json.loads((source / INDEX).read_text())
    return found


def index(edit: Callable[[dict[str, Any]], object]) -> Change:
    """Two shards with a changed weight_map."""

    def change(source: Path) -> None:
        found = sharded(source)
        edit(found["weight_map"])
        write_json(source / INDEX, found)

    return change


def index_with(**values: Any) -> Change:
    """Two shards and an index with these values; `...` removes one."""

    def change(source: Path) -> None:
        found = {**sharded(source), **values}
        write_json(source / INDEX, {key: value for key, value in found.items() if value is not ...})

    return change


def index_file(data: bytes) -> Change:
    """Two shards with this for an index."""

    def change(source: Path) -> None:
        sharded(source)
        (source / INDEX).write_bytes(data)

    return change


def after_sharding(change: Change) -> Change:
    def both(source: Path) -> None:
        sharded(source)
        change(source)

    return both


def replaced(name: str, make: Callable[[Path], object]) -> Change:
    """Something else in a file's place."""

    def change(source: Path) -> None:
        (source / name).unlink(missing_ok=True)
        make(source / name)

    return change


def link(name: str, target: str) -> Change:
    """A link in a file's place."""
    return replaced(name, lambda path: path.symlink_to(target))
