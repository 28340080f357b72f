"""The output appears whole or not at all: it is built beside the target and renamed into place."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swaa_convert.errors import SwaaError


def check_target(out: Path, *, force: bool) -> Path:
    """Where to write, absolute; refused if something stands there that may not be replaced."""
    target = Path(os.path.abspath(out.expanduser()))
    if target.is_symlink():
        raise SwaaError(f"{out} is a link: give the folder itself as --out")
    if not target.exists():
        return target
    if not force:
        raise SwaaError(f"{out} exists already: choose another --out, or replace a converted repo with --force")
    if not is_converted(target):
        raise SwaaError(f"{out} is not a converted repo, so --force does not remove it: choose another --out")
    return target


def refuse_overlap(target: Path, source: Path) -> None:
    """The source is never touched: neither folder may lie in the other."""
    real, root = target.resolve(), source.resolve()
    if real == root:
        raise SwaaError(f"--out {target} is the source itself: choose another folder")
    if real.is_relative_to(root):
        raise SwaaError(f"--out {target} lies inside the source: choose a folder outside it")
    if root.is_relative_to(real):
        raise SwaaError(f"the source lies inside --out {target}: choose another folder")


def is_converted(folder: Path) -> bool:
    """Whether a folder is a converted repo: its config.json has a swaa_config."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get("swaa_config"), dict)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder beside `target`: it takes its place when the block ends well, and vanishes otherwise."""
    made = _make_parents(target.parent)
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.swaa-", dir=target.parent))
        try:
            yield stage
            _publish(stage, target)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
    except BaseException:
        _remove_empty(made)
        raise


def _publish(stage: Path, target: Path) -> None:
    """Rename into place; what stood there goes only after the new one stands."""
    # mkdtemp keeps others out; the repo gets the permissions that mkdir would have given it.
    stage.chmod(0o777 & ~_umask())
    _sync(stage)
    if not target.exists():
        stage.rename(target)
    else:
        _swap(stage, target)
    _sync(target.parent)


def _swap(stage: Path, target: Path) -> None:
    old = stage.with_name(f"{stage.name}.old")
    try:
        target.rename(old)
        stage.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old)


def _make_parents(folder: Path) -> list[Path]:
    """Create the missing parents and return them, innermost first."""
    missing = [folder, *folder.parents]
    made = [path for path in missing if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    """See a folder's entries to the disk, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
