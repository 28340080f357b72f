"""Numbers as people write them: 2048 or 2k; layers as 1,5,9; bytes as 7.6 GB."""

import re

_SIZE = re.compile(r"(\d+)([km]?)", re.IGNORECASE)
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?b?)", re.IGNORECASE)
_UNITS = {unit + b: 1000**power for power, unit in enumerate(("", "K", "M", "G", "T")) for b in ("", "B")}
_FACTORS = {"": 1, "k": 1024, "m": 1024**2}
# No file system has larger files.
_MOST = 2.0**63
# Enough for any count of tokens, and few enough for Python to read.
_DIGITS = 18


def parse_size(text: str) -> int:
    """2048, 2k or 1m as a count of tokens; ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(match[1]) > _DIGITS:
        raise ValueError(f"{text!r} is not a number of tokens such as 2048 or 2k")
    return int(match[1]) * _FACTORS[match[2].lower()]


def parse_bytes(text: str) -> int:
    """5GB, 500MB or 1073741824 as a count of bytes, in decimal units; ValueError for anything else."""
    match = _BYTES.fullmatch(text.strip())
    count = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 0.5 < count < _MOST:
        raise ValueError(f"{text!r} is not a size such as 5GB or 500MB")
    return round(count)


def parse_layers(text: str) -> tuple[int, ...]:
    """1,5,9 (brackets and spaces allowed) as layer numbers; ValueError for anything else."""
    inner = text.strip().removeprefix("[").removesuffix("]")
    parts = [part.strip() for part in inner.split(",") if part.strip()]
    if not all(re.fullmatch(r"-?\d+", part) for part in parts):
        raise ValueError(f"{text!r} is not a list of layers such as 1,5,9")
    return tuple(int(part) for part in parts)


def show_bytes(count: float) -> str:
    """A byte count in decimal units, as download pages show it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
