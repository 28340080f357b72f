"""Where every tensor stands in its safetensors file, in the order of the data."""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Slot:
    """One tensor: its name, dtype and shape as the header says them, and where its bytes are.

    Parameters
    ----------
    file:
        The source's file that holds it.
    start, size:
        Its bytes, counted from the file's beginning.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    size: int

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """A safetensors file: its name, its `__metadata__` and its tensors in the order of their data.

    Parameters
    ----------
    header:
        The beginning of the file up to the data, if there is such a file already; None: to be made.
    """

    name: str
    metadata: dict[str, str] | None
    slots: tuple[Slot, ...]
    header: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of tensor data."""
        return sum(slot.size for slot in self.slots)


def read_shard(path: Path, name: str) -> Shard:
    """The layout of a file that `check_weights` has found sound."""
    with path.open("rb") as file:
        length = file.read(8)
        text = file.read(int.from_bytes(length, "little"))
    header: dict[str, Any] = json.loads(text)
    metadata = header.pop("__metadata__", None)
    data = len(length) + len(text)
    entries = sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0]))
    return Shard(name, metadata, tuple(_slot(tensor, entry, name, data) for tensor, entry in entries), length + text)


def header_of(shard: Shard) -> bytes:
    """The header that a shard's file begins with: the source's own where there is one."""
    if shard.header is not None:
        return shard.header
    entries: dict[str, Any] = {} if shard.metadata is None else {"__metadata__": shard.metadata}
    end = 0
    for slot in shard.slots:
        start, end = end, end + slot.size
        entries[slot.name] = {"dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    # The format asks that the data be aligned to eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _slot(name: str, entry: dict[str, Any], file: str, data: int) -> Slot:
    start, stop = entry["data_offsets"]
    return Slot(name, entry["dtype"], tuple(entry["shape"]), file, data + start, stop - start)
