"""Whether the disk has room, asked before anything is fetched or written."""

import shutil
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.plan import Plan
from swaa_convert.sizes import show_bytes

# Code, card, recipe and manifest, and what the file system needs for itself.
_MARGIN = 4 * 1024**2


def check_space(target: Path, plan: Plan, *, link: bool, there: int = 0) -> None:
    """Refuse a conversion that would fill the disk; hard-linked weights and the bytes that are there need no room."""
    linked = sum(plan.source.files[name] for name in plan.weights if link and name.endswith(".safetensors"))
    require_space(target, max(plan.size - linked - there, 0), "" if link else ", or hard-link the weights with --link")


def require_space(target: Path, needed: int, other_way: str = "") -> None:
    """Refuse to write `needed` bytes to the folder `target`, which need not exist yet, where they don't fit."""
    place = next(folder for folder in target.parents if folder.exists())
    disk = shutil.disk_usage(place)
    # Some file systems don't tell their size.
    if disk.total and needed + _MARGIN > disk.free:
        raise SwaaError(
            f"{place}: {show_bytes(needed + _MARGIN)} are needed and {show_bytes(disk.free)} are free: "
            f"free some space, choose another --out{other_way}"
        )
