"""A checkpoint's weight files, and what their safetensors headers say. No weights are read."""

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.safetensors_header import TensorInfo, parse_header
from swaa_convert.source import Source

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
# What safetensors itself allows.
_MAX_HEADER = 100_000_000
_OTHER_WEIGHTS = {
    "pytorch_model*.bin": 'write safetensors once with python -c "from transformers import AutoModelForCausalLM as M; '
    "M.from_pretrained('{source}', dtype='auto').save_pretrained('{source}-safetensors')\" and convert those",
    "*.pth": "take the repo of the same model in safetensors",
    "*.gguf": "take the safetensors repo that it was made from",
}


def find_weights(source: Source) -> tuple[str, ...]:
    """The names of the weight files that transformers would load, index included."""
    if SINGLE in source.files:
        return (SINGLE,)
    if INDEX not in source.files:
        return _numbered(source)
    shards = _shards(source)
    missing = [name for name in shards if name not in source.files]
    if missing:
        raise SwaaError(
            f"{source.name}: {INDEX} names {missing[0]}, which is not there"
            f" ({len(missing)} of {len(shards)} shards missing): fetch the source again"
        )
    return (*shards, INDEX)


def check_weights(source: Source, weights: tuple[str, ...]) -> None:
    """Refuse damaged or incomplete weight files before any of them is copied."""
    headers = {name: read_header(source.path_of(name), name) for name in weights if name != INDEX}
    homes = _homes(headers)
    if INDEX not in weights:
        return
    index = source.read_json(INDEX)
    for tensor, shard in index["weight_map"].items():
        if homes.get(tensor) != shard:
            there = f"{homes[tensor]} does" if tensor in homes else "no shard does"
            raise SwaaError(
                f"{source.name}: {INDEX} says that {shard} holds {tensor}, but {there}: fetch the source again"
            )
    if not isinstance(index.get("metadata"), Mapping):
        # transformers could not load such a checkpoint, nor what is made of it.
        found = f"is {index['metadata']!r}" if "metadata" in index else "there is none"
        raise SwaaError(
            f"{source.name}: metadata in {INDEX} must be an object, and {found}: "
            'write "metadata": {} in a copy of it, or fetch it again'
        )


def read_headers(paths: Mapping[str, Path]) -> dict[str, TensorInfo]:
    """All tensors of these files, by name; one that stands twice is refused."""
    headers = {name: read_header(path, name) for name, path in paths.items()}
    _homes(headers)
    return {tensor: info for header in headers.values() for tensor, info in header.items()}


def read_header(path: Path, name: str, whose: str = "source") -> dict[str, TensorInfo]:
    """The tensors of one safetensors file; a damaged file is refused by its `name`, as one of the source's or so."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _damaged(name, "its header runs past its end", whose)
        if length > _MAX_HEADER:
            raise _damaged(name, f"its header is absurdly large, {length} bytes", whose)
        text = file.read(length)
    try:
        return parse_header(text, size - 8 - length)
    except ValueError as error:
        raise _damaged(name, str(error), whose) from error


def _homes(headers: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, str]:
    """The file that holds each tensor; one that stands twice is refused."""
    found: dict[str, str] = {}
    for name, header in headers.items():
        twice = sorted(found.keys() & header.keys())
        if twice:
            raise SwaaError(f"{name} holds {twice[0]}, which {found[twice[0]]} holds too: fetch the source again")
        found |= dict.fromkeys(header, name)
    return found


def _shards(source: Source) -> tuple[str, ...]:
    weight_map = source.read_json(INDEX).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise SwaaError(f"{source.name}: {INDEX} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise SwaaError(f"{source.name}: {INDEX} names {name!r}, which is no safetensors file beside it")
    return tuple(names)


def _numbered(source: Source) -> tuple[str, ...]:
    """Shards without an index, if their names say that none is missing; the output gets one."""
    found = [match for name in sorted(source.files) if (match := _SHARD.fullmatch(name))]
    if not found:
        raise SwaaError(f"{source.name} {_no_weights(source)}")
    count = int(found[0][2])
    if [(int(match[1]), int(match[2])) for match in found] != [(number, count) for number in range(1, count + 1)]:
        raise SwaaError(
            f"{source.name} has no {INDEX}, and of {count} shards only {len(found)}: fetch the source again"
        )
    return tuple(match[0] for match in found)


def _no_weights(source: Source) -> str:
    for pattern, way_out in _OTHER_WEIGHTS.items():
        if any(fnmatch(name, pattern) for name in source.files):
            return f"has only {pattern} weights: {way_out.format(source=source.name)}"
    return f"has no weights: neither {SINGLE} nor {INDEX} is there: fetch it again, or give a checkpoint that has them"


def _damaged(name: str, reason: str, whose: str) -> SwaaError:
    return SwaaError(f"{name} is damaged ({reason}): fetch the {whose} again")
