"""The output appears whole or not at all: it is built beside the target and renamed into place."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swaa_convert.errors import SwaaError
from swaa_convert.exchange import exchange
from swaa_convert.leftovers import claimed, moved_aside
from swaa_convert.resume import FILE, read_journal


def absolute(out: Path) -> Path:
    """The folder that --out names, from the root; links on the way are left as they are."""
    return Path(os.path.abspath(out.expanduser()))


def check_target(out: Path, *, force: bool) -> Path:
    """Where to write, absolute; refused if something stands there that may not be replaced."""
    target = absolute(out)
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
    # Not Path.resolve, which raises RuntimeError for a loop of links before Python 3.13.
    real, root = Path(os.path.realpath(target)), Path(os.path.realpath(source))
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
def staged(target: Path, *, resume: bool = False) -> Iterator[Path]:
    """A folder beside `target`: it takes its place when the block ends well, and vanishes otherwise.

    It is new; with `resume` it is the latest in which a killed run has finished something, if there is one, and it
    stays for the next run if this one breaks off too.
    """
    replaces = target.exists()
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with claimed(target, FILE if resume else None) as stage:
            try:
                yield stage
                (stage / FILE).unlink(missing_ok=True)
                _publish(stage, target, replaces=replaces)
            except BaseException:
                if not resume or not read_journal(stage):
                    shutil.rmtree(stage, ignore_errors=True)
                raise
            else:
                # Once published, what stands here is the repo that was replaced.
                shutil.rmtree(stage, ignore_errors=True)
    except BaseException:
        _remove_empty(missing)
        raise


def _publish(stage: Path, target: Path, *, replaces: bool) -> None:
    """Rename into place; what stood there at the beginning goes only after the new one stands."""
    if target.exists() and not replaces:
        raise SwaaError(f"{target} appeared meanwhile: choose another --out, or replace it with --force")
    # Others were kept out; the repo gets the permissions of what it replaces, or those that mkdir would have given it.
    stage.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o777 & ~_umask())
    _sync(stage)
    if not target.exists():
        stage.rename(target)
    elif not exchange(stage, target):
        _swap(stage, target)
    _sync(target.parent)


def _swap(stage: Path, target: Path) -> None:
    """In two steps, where the system has no single one; a run killed between them is mended by the next `sweep`."""
    old = moved_aside(stage)
    try:
        target.rename(old)
        stage.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
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
