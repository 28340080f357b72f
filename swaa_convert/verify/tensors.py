"""A converted repo's tensors beside its source's, bit for bit, a few megabytes at a time."""

import io
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.safetensors_header import TensorInfo
from swaa_convert.source import Source
from swaa_convert.verify.checks import Check, Difference
from swaa_convert.weights import INDEX, check_weights, find_weights, read_header

_BLOCK = 4 * 1024**2


@dataclass(frozen=True)
class Stored:
    """A tensor and the file that it is in."""

    path: Path
    info: TensorInfo


def check_tensors(repo: Source, source: Source, merged: Collection[str], advance: Advance, *, quiet: bool) -> Check:
    """The tensors that no merge touched, by name, dtype, shape and bits; which file holds them does not matter."""
    theirs = stored_tensors(source, quiet=quiet)
    try:
        ours = repo_tensors(repo)
    except SwaaError as error:
        return Check("tensors", "cannot be read", (Difference(repo.name, error.message),))
    found = tuple(_differences(ours, theirs, frozenset(merged), advance))
    same = len(ours.keys() - frozenset(merged))
    said = f"{len(found)} differ from {source.name}'s" if found else f"{same} tensors equal to {source.name}'s"
    return Check("tensors", said, found)


def repo_tensors(repo: Source) -> dict[str, Stored]:
    """All tensors of a converted repo: what is damaged there need not be so in its source."""
    try:
        return stored_tensors(repo, quiet=True)
    except SwaaError as error:
        raise SwaaError(error.message.removesuffix(": fetch the source again")) from error


def stored_tensors(source: Source, *, quiet: bool) -> dict[str, Stored]:
    """All tensors of a checkpoint whose files are sound."""
    names = find_weights(source)
    source.fetch(names, quiet=quiet)
    check_weights(source, names)
    found: dict[str, Stored] = {}
    for name in names:
        if name != INDEX:
            path = source.path_of(name)
            found |= {tensor: Stored(path, info) for tensor, info in read_header(path, name).items()}
    return found


def _differences(
    ours: Mapping[str, Stored], theirs: Mapping[str, Stored], merged: frozenset[str], advance: Advance
) -> Iterator[Difference]:
    for name, stored in ours.items():
        if name in merged:
            continue
        what = "is not in the source" if name not in theirs else _difference(stored, theirs[name])
        advance(stored.info.stop - stored.info.start)
        if what is not None:
            yield Difference(name, what)
    for name in theirs.keys() - ours.keys() - merged:
        yield Difference(name, "is missing")


def _difference(one: Stored, other: Stored) -> str | None:
    if one.info.dtype != other.info.dtype:
        return f"is {one.info.dtype}, the source's {other.info.dtype}"
    if one.info.shape != other.info.shape:
        return f"has shape {list(one.info.shape)}, the source's {list(other.info.shape)}"
    return None if _same_bits(one, other) else "has other values than the source's"


def _same_bits(one: Stored, other: Stored) -> bool:
    if one.info.start == other.info.start and one.path.samefile(other.path):
        # A hard link, or both in the Hub's cache.
        return True
    left = one.info.stop - one.info.start
    with one.path.open("rb", buffering=0) as ours, other.path.open("rb", buffering=0) as theirs:
        ours.seek(one.info.start)
        theirs.seek(other.info.start)
        while left:
            block = _read(ours, min(left, _BLOCK))
            if block != _read(theirs, len(block)) or not block:
                return False
            left -= len(block)
    return True


def _read(file: io.FileIO, count: int) -> bytes:
    """The next `count` bytes, fewer only at the end: one read of a network file may give less."""
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
