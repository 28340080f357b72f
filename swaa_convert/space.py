"""Whether the disk has room, asked before anything is fetched or written."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.plan import Plan
from swaa_convert.sizes import show_bytes
from swaa_convert.source import Download

# Code, card, recipe and manifest, and what the file system needs for itself.
_MARGIN = 4 * 1024**2


@dataclass
class _Room:
    """What one disk must hold, in bytes: at `place`, what is written and what is fetched."""

    place: Path
    written: int = 0
    fetched: int = 0


def check_space(target: Path, plan: Plan, *, link: bool, there: int = 0) -> None:
    """Refuse a conversion that would fill the disk; hard-linked weights and the bytes that are there need no room."""
    linked = sum(plan.source.files[name] for name in plan.weights if link and name.endswith(".safetensors"))
    downloads = [plan.source.to_fetch((*plan.weights, *plan.small))]
    downloads += [adapter.source.to_fetch((adapter.weights,)) for adapter in plan.adapters]
    ways = () if link else ("hard-link the weights with --link",)
    require_space(target, max(plan.size - linked - there, 0), ways, downloads)


def require_space(
    target: Path, needed: int, ways: Iterable[str] = (), downloads: Iterable[Download | None] = ()
) -> None:
    """Refuse to write `needed` bytes to the folder `target`, which need not exist yet, where they don't fit.

    What is downloaded first needs room too: on the same disk, or on the one that holds the Hub's cache.
    """
    place = _existing(target.parent)
    rooms = {_device(place): _Room(place, written=needed)}
    for download in downloads:
        if download is not None and download.size:
            folder = _existing(download.folder)
            rooms.setdefault(_device(folder), _Room(folder)).fetched += download.size
    out, *caches = rooms.values()
    of_them = f" ({show_bytes(out.fetched)} of them for the download)" if out.fetched else ""
    moves = ("move the Hub's cache to another disk with HF_HOME",)
    _require(out, of_them, ("choose another --out", *ways, *(moves if out.fetched else ())))
    for cache in caches:
        _require(cache, " for the download", moves)


def _require(room: _Room, what_for: str, ways: tuple[str, ...]) -> None:
    disk, needed = shutil.disk_usage(room.place), room.written + room.fetched + _MARGIN
    # Some file systems don't tell their size.
    if disk.total and needed > disk.free:
        *first, last = ("free some space", *ways)
        raise SwaaError(
            f"{room.place}: {show_bytes(needed)} are needed{what_for} and {show_bytes(disk.free)} are free: "
            f"{', '.join(first)}{',' if len(first) > 1 else ''} or {last}"
        )


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _device(folder: Path) -> int:
    return folder.stat().st_dev
