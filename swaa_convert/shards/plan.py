"""Which tensor goes into which file: as in the source, or cut anew by size."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swaa_convert.shards.layout import Shard, Slot
from swaa_convert.weights import SINGLE


def with_added(shards: Iterable[Shard], added: Mapping[str, Slot]) -> list[Shard]:
    """The shards with each added tensor behind the one that it is keyed by."""
    return [
        _extended(shard, added) if added.keys() & {slot.name for slot in shard.slots} else shard for shard in shards
    ]


def cut(shards: Sequence[Shard], limit: int) -> list[Shard]:
    """All tensors in their order, in files of at most `limit` bytes of data, or of one tensor that is larger."""
    groups: list[list[Slot]] = [[]]
    room = limit
    for slot in (slot for shard in shards for slot in shard.slots):
        if slot.size > room and groups[-1]:
            groups.append([])
            room = limit
        groups[-1].append(slot)
        room -= slot.size
    names = _names(len(groups))
    return [Shard(name, shards[0].metadata, tuple(slots)) for name, slots in zip(names, groups, strict=True)]


def make_index(shards: Sequence[Shard], old: Mapping[str, Any] | None) -> bytes | None:
    """The index of these shards, with what else the old one says; None for a single file."""
    if [shard.name for shard in shards] == [SINGLE]:
        return None
    slots = {slot.name: (slot, shard.name) for shard in shards for slot in shard.slots}
    metadata = {**(old or {}).get("metadata", {}), "total_size": sum(slot.size for slot, _ in slots.values())}
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(slot.numel for slot, _ in slots.values())
    order = [*(name for name in (old or {}).get("weight_map", {}) if name in slots), *slots]
    index = {**(old or {}), "metadata": metadata, "weight_map": {name: slots[name][1] for name in dict.fromkeys(order)}}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()


def _extended(shard: Shard, added: Mapping[str, Slot]) -> Shard:
    slots = [part for slot in shard.slots for part in (slot, added.get(slot.name)) if part is not None]
    return replace(shard, slots=tuple(slots), header=None)


def _names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
