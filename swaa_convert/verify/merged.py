"""A converted repo's merged tensors beside the same merge done again, bit for bit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.manifest import MANIFEST, Manifest, Merged
from swaa_convert.merge.adapter import Adapter, open_adapter
from swaa_convert.merge.memory import use_huge_pages
from swaa_convert.safetensors_header import TensorInfo
from swaa_convert.shards.layout import Slot, read_shard
from swaa_convert.shards.plan import with_added
from swaa_convert.source import Source
from swaa_convert.source_checks import check_source
from swaa_convert.verify.checks import Check, Difference
from swaa_convert.verify.tensors import Stored, repo_tensors
from swaa_convert.weights import INDEX, find_weights

_NAME = "merge"


def given_adapters(given: Sequence[str], manifest: Manifest) -> dict[str, Adapter]:
    """The local adapters of `--lora` by their hashes; one that the repo was not made with is refused."""
    merged = () if manifest.merged is None else manifest.merged.adapters
    wanted = {str(each["sha256"]) for each in merged if each.get("sha256")}
    found = {}
    for name in given:
        if not Path(name).expanduser().exists():
            raise SwaaError(f"--lora: no folder {name} (adapters on the Hub are found without it)")
        adapter = open_adapter(name)
        sha256 = str(adapter.provenance.get("sha256"))
        if sha256 not in wanted:
            raise SwaaError(f"--lora: {name} is not an adapter that this repo was made with: drop it")
        found[sha256] = adapter
    return found


def with_adapters_near(given: Mapping[str, Adapter], manifest: Manifest, places: Sequence[Path]) -> dict[str, Adapter]:
    """These adapters, and those that the repo was made with and that these folders hold by their names, by hashes."""
    found = dict(given)
    for noted in () if manifest.merged is None else manifest.merged.adapters:
        name = str(noted.get("name"))
        for place in dict.fromkeys(places) if noted.get("sha256") and Path(name).name == name else ():
            if noted["sha256"] in found:
                break  # a hash reads the whole file
            try:
                adapter = open_adapter(place / name) if (place / name).is_dir() else None
            except SwaaError:
                continue  # something else of that name
            if adapter is not None and adapter.provenance.get("sha256") == noted["sha256"]:
                found[str(noted["sha256"])] = adapter
    return found


def check_merged(
    repo: Source, source: Source, merged: Merged, given: Mapping[str, Adapter], advance: Advance, *, quiet: bool
) -> Check:
    """Merge again and compare; failed, and nothing claimed, where that cannot be done."""
    count, found = len(merged.tensors), list[Difference]()
    try:
        adapters = [_adapter(each, given, quiet=quiet) for each in merged.adapters]
        for difference in _differences(repo, source, merged, adapters, advance, quiet=quiet):
            found.append(difference)
    except SwaaError as error:
        # Some have been, where a difference was found.
        compared = "not all compared" if found else "not compared"
        return Check(_NAME, f"{count} merged tensors {compared}: {error.message}", tuple(found), failed=True)
    if found:
        return Check(_NAME, f"{len(found)} differ from a merge done again with {_libraries()}", tuple(found))
    return Check(_NAME, f"{count} merged tensors equal to a merge done again")


def _adapter(noted: Mapping[str, Any], given: Mapping[str, Adapter], *, quiet: bool) -> Adapter:
    """One of the adapters that a manifest names, with its weights."""
    if noted.get("id") and noted.get("revision"):
        adapter = open_adapter(str(noted["id"]), str(noted["revision"]), quiet=quiet)
        adapter.source.fetch((adapter.weights,), quiet=quiet)
        return adapter
    if not noted.get("sha256"):
        # No folder could be told to be the right one.
        name = noted.get("id") or noted.get("name")
        raise SwaaError(f"{MANIFEST} has no commit and no hash of the adapter {name}: convert the source again")
    if str(noted["sha256"]) not in given:
        raise SwaaError(f"give the folder of the adapter {noted.get('name')} with --lora")
    return given[str(noted["sha256"])]


def _differences(
    repo: Source, source: Source, merged: Merged, adapters: Sequence[Adapter], advance: Advance, *, quiet: bool
) -> Iterator[Difference]:
    use_huge_pages()
    # peft and torch are imported here and not before.
    from swaa_convert.merge.merger import Merger

    ours = repo_tensors(repo)
    merger = Merger(source, check_source(source)[0], adapters)
    shards = [read_shard(source.path_of(name), name) for name in find_weights(source) if name != INDEX]
    left = set(merged.tensors)
    for shard in with_added(shards, merger.bind(shards)):
        file = merger.file_of(shard.slots)
        for position, slot in enumerate(shard.slots):
            if not merger.changes(slot):
                continue
            left.discard(slot.name)
            what = _difference(ours.get(slot.name), slot, file.data(position))
            advance(slot.size)
            if what is not None:
                yield Difference(slot.name, what)
    for name in sorted(left):
        yield Difference(name, "is said to be merged, but the adapters don't change it")


def _difference(stored: Stored | None, slot: Slot, expected: memoryview) -> str | None:
    if stored is None:
        return "is missing"
    if (stored.info.dtype, stored.info.shape) != (slot.dtype, slot.shape):
        return f"is {_kind(stored.info)}, and the merge makes {slot.dtype} {list(slot.shape)}"
    with stored.path.open("rb") as file:
        file.seek(stored.info.start)
        actual = file.read(slot.size)
    return None if actual == expected else _how_far(actual, expected, slot)


def _how_far(actual: bytes, expected: memoryview, slot: Slot) -> str:
    """In how many numbers, and by how much: rounding tells itself from damage."""
    import torch

    from swaa_convert.merge.stored import DTYPES

    one, other = (torch.frombuffer(bytearray(data), dtype=DTYPES[slot.dtype]) for data in (actual, expected))
    differ = one.view(torch.uint8).view(len(one), -1).ne(other.view(torch.uint8).view(len(other), -1)).any(1)
    most = (one[differ].double() - other[differ].double()).abs().max().item()
    return f"differs in {int(differ.sum())} of {len(one)} numbers, by up to {most:.3g}"


def _kind(info: TensorInfo) -> str:
    return f"{info.dtype} {list(info.shape)}"


def _libraries() -> str:
    """What decides the last bit of a merge, beside the processor."""
    import peft
    import torch

    return f"peft {peft.__version__} and torch {torch.__version__} (others may round otherwise)"
