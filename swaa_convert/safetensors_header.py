"""What the header of a safetensors file says, believed only where it agrees with itself and with the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from swaa_convert.strict_json import parse_json

_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}

# torch has no more.
_MAX_DIMENSIONS = 64


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its dtype and shape as the header says them; its bytes are [start, stop) of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_header(text: bytes, data_size: int) -> dict[str, TensorInfo]:
    """The tensors of a header that stands before `data_size` bytes of data, in the order of their data.

    Raises ValueError, which says in one line what is wrong: the data areas must follow each other without a gap and
    end where the file ends, and each must have the size that dtype and shape ask for.
    """
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    _check_metadata(header.pop("__metadata__", None))
    data = 8 + len(text)
    found = {name: _info(name, entry, data) for name, entry in header.items()}
    found = dict(sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)))
    end = data
    for name, info in found.items():
        if info.start != end:
            raise ValueError(f"the data of {name} overlaps or leaves a gap")
        end = info.stop
    if end - data != data_size:
        raise ValueError(f"it should hold {end - data} bytes of data but holds {data_size}")
    return found


def _info(name: str, entry: Any, data: int) -> TensorInfo:
    if not isinstance(entry, Mapping) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"{name} has the unknown dtype {dtype!r}")
    if not _are_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{name} has the shape {shape!r}")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise ValueError(f"{name} has the data_offsets {offsets!r}")
    size = offsets[1] - offsets[0]
    if prod(shape) * _BITS[dtype] != 8 * size:
        raise ValueError(f"{name} holds {size} bytes, which {dtype} of shape {shape} does not")
    return TensorInfo(dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _check_metadata(metadata: Any) -> None:
    plain = isinstance(metadata, Mapping) and all(isinstance(value, str) for value in metadata.values())
    if metadata is not None and not plain:
        raise ValueError("its __metadata__ is not text by name")


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
