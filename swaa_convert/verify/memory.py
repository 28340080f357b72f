"""How much memory a process may take now."""

from collections.abc import Iterator
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Bytes that can be had without swapping, within what a container allows; None where nobody says."""
    return min(_limits(), default=None)


def _limits() -> Iterator[int]:
    available = _field(Path("/proc/meminfo"), "MemAvailable:")
    if available is not None:
        yield available * 1024
    limit, used = _number(_GROUP / "memory.max"), _number(_GROUP / "memory.current")
    if limit is not None and used is not None:
        # What is cached of files is given back when memory is asked for.
        yield limit - used + (_field(_GROUP / "memory.stat", "inactive_file") or 0)


def _field(path: Path, name: str) -> int | None:
    """The number behind a name in a file of lines."""
    rows = (line.split() for line in _text(path).splitlines())
    return next((int(row[1]) for row in rows if len(row) > 1 and row[0] == name), None)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
