"""One shard of the output: copied as a file where nothing in it changes, else tensor by tensor."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Protocol

from swaa_convert.copying import Advance, clone_file, copy_file, link_file
from swaa_convert.hashed_file import hashed_file
from swaa_convert.hashing import known_sha256
from swaa_convert.shards.layout import Shard, Slot, header_of


class MergedFile(Protocol):
    """The changed tensors of one file."""

    def data(self, position: int) -> memoryview:
        """The new bytes of the tensor at `position`; those behind it will be asked for next."""


class Merged(Protocol):
    """Where the bytes of changed tensors come from."""

    def changes(self, slot: Slot) -> bool:
        """Whether this tensor is not the source's."""

    def file_of(self, slots: tuple[Slot, ...]) -> MergedFile:
        """The changed tensors among those of one file; several files may be asked for at once."""


def is_copy(shard: Shard, merged: Merged | None) -> bool:
    """Whether a shard is one of the source's files as it stands."""
    return shard.header is not None and not any(_changes(merged, slot) for slot in shard.slots)


def write_shard(
    shard: Shard,
    target: Path,
    path_of: Callable[[str], Path],
    merged: Merged | None,
    advance: Advance,
    *,
    link: bool = False,
) -> str | None:
    """Write one file of the output to `target`; `path_of` finds the source's files, which are only read.

    Returns its SHA-256, with `advance` told every byte; None if that takes reading it: then `advance` is told nothing.
    """
    if is_copy(shard, merged):
        return _copy(path_of(shard.name), target, advance, link=link)
    with ExitStack() as files, hashed_file(target, advance) as writer:
        open_files: dict[str, FileIO] = {}
        changed = None if merged is None else merged.file_of(shard.slots)
        writer.write(memoryview(header_of(shard)))
        for position, run in _runs(shard.slots, merged):
            first = run[0]
            if changed is not None and _changes(merged, first):
                writer.write(changed.data(position))
                continue
            if first.file not in open_files:
                open_files[first.file] = files.enter_context(path_of(first.file).open("rb", buffering=0))
            writer.copy(open_files[first.file], first.start, run[-1].start + run[-1].size - first.start)
    return writer.sha256


def _copy(source: Path, target: Path, advance: Advance, *, link: bool) -> str | None:
    """Copy one file in the way that costs least; what the Hub has hashed need not even be read."""
    known = known_sha256(source)
    if link:
        link_file(source, target)
    elif not clone_file(source, target):
        if known is not None:
            copy_file(source, target, advance)
            return known
        with source.open("rb", buffering=0) as reader, hashed_file(target, advance) as writer:
            writer.copy(reader, 0, source.stat().st_size)
        return writer.sha256
    if known is not None:
        advance(target.stat().st_size)
    return known


def _runs(slots: tuple[Slot, ...], merged: Merged | None) -> Iterator[tuple[int, list[Slot]]]:
    """(position, tensors) of what is copied in one go, as it follows each other in one file; changed tensors alone."""
    run: list[Slot] = []
    for position, slot in enumerate(slots):
        if run and (_changes(merged, slot) or _changes(merged, run[-1]) or not _follows(slot, run[-1])):
            yield position - len(run), run
            run = []
        run.append(slot)
    if run:
        yield len(slots) - len(run), run


def _follows(slot: Slot, before: Slot) -> bool:
    return slot.file == before.file and slot.start == before.start + before.size


def _changes(merged: Merged | None, slot: Slot) -> bool:
    return merged is not None and merged.changes(slot)
