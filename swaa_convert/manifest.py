"""swaa_manifest.json: what a conversion wrote, file by file, so that anyone can verify a converted repo.

It holds no time and no path: the same conversion writes the same manifest. Other software ignores it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from swaa_convert import __version__
from swaa_convert.errors import SwaaError
from swaa_convert.source import Source

MANIFEST = "swaa_manifest.json"
VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """One file: its size in bytes and its SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Merged:
    """What a merge changed.

    Parameters
    ----------
    adapters:
        Where the adapters came from, in the order in which they were merged: id or name, revision.
    tensors:
        The names, on disk, of the tensors that are no longer the source's.
    """

    adapters: tuple[Mapping[str, Any], ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a conversion wrote.

    Parameters
    ----------
    source:
        The source's Hub id or folder name, and its commit, as in swaa_recipe.yaml.
    files:
        Every file of the repo but the manifest itself, by name.
    merged:
        What a merge changed; None: every tensor is the source's.
    tool:
        The version of swaa-convert that converted.
    code:
        The version of swaa-convert whose code the repo carries.
    theirs:
        Files of a repo on the Hub that stood there before the first push, just as that would have written them.
    """

    source: Mapping[str, str | None]
    files: Mapping[str, FileEntry]
    merged: Merged | None = None
    tool: str = __version__
    code: str = __version__
    theirs: tuple[str, ...] = ()


def make_manifest(
    folder: Path,
    hashes: Mapping[str, str],
    source: Mapping[str, str | None],
    merged: Merged | None = None,
) -> Manifest:
    """The manifest of a new repo in `folder`; `hashes` holds the SHA-256 of each of its files."""
    files = {name: FileEntry((folder / name).stat().st_size, hashes[name]) for name in sorted(hashes)}
    return Manifest(source, files, merged)


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
    values = {
        "version": VERSION,
        "tool": {"name": "swaa-convert", "version": manifest.tool},
        "code": {"version": manifest.code},
        "source": dict(manifest.source),
        "merged": None if manifest.merged is None else asdict(manifest.merged),
        "files": {name: asdict(entry) for name, entry in sorted(manifest.files.items())},
    }
    if manifest.theirs:
        values["theirs"] = sorted(manifest.theirs)
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(source: Source) -> Manifest | None:
    """A converted repo's manifest, checked; None if it has none."""
    if MANIFEST not in source.files:
        return None
    values = source.read_json(MANIFEST)
    if values.get("version") != VERSION:
        if not isinstance(values.get("version"), int):
            raise SwaaError(f"{source.name}: {MANIFEST} is not what swaa-convert writes: convert its source again")
        raise SwaaError(
            f"{source.name}: {MANIFEST} has version {values.get('version')!r}, "
            f"but swaa-convert {__version__} reads {VERSION}: install a newer swaa-convert"
        )
    try:
        return _manifest(values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else error
        raise SwaaError(f"{source.name}: {MANIFEST} is damaged ({what}): fetch the repo again") from error


def _manifest(values: Mapping[str, Any]) -> Manifest:
    merged = values["merged"]
    return Manifest(
        source={_text(key): None if value is None else _text(value) for key, value in values["source"].items()},
        files={_name(name): _entry(name, entry) for name, entry in values["files"].items()},
        merged=None if merged is None else _merged(merged),
        tool=_text(values["tool"]["version"]),
        code=_text(values["code"]["version"]),
        theirs=tuple(_name(name) for name in values.get("theirs", ())),
    )


def _merged(values: Mapping[str, Any]) -> Merged:
    adapters = tuple({_text(key): value for key, value in adapter.items()} for adapter in values["adapters"])
    return Merged(adapters, tuple(_text(name) for name in values["tensors"]))


def _entry(name: str, values: Mapping[str, Any]) -> FileEntry:
    size, sha256 = values["size"], _text(values["sha256"])
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError(f"no size and SHA-256 of {name!r}")
    return FileEntry(size, sha256)


def _name(name: str) -> str:
    """A file in the folder; a manifest from strangers names nothing outside of it."""
    path = PurePosixPath(_text(name))
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is no file of the repo")
    return name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
