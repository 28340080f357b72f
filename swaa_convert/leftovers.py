"""The folder beside the target in which a run works, and what killed runs left there.

While `.NAME.swaa-1a2b3c4d` is a run's own, it holds the system's lock on `.NAME.swaa-1a2b3c4d.lock`. The system
lets go of the lock when the process ends, however it ends: a lock that can be taken says that nobody works there.
No process number is kept that another process could get later. Where there are no locks (Windows, some network
file systems), leftovers stay.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


@contextlib.contextmanager
def claimed(target: Path, keep: str | None = None) -> Iterator[Path]:
    """A folder beside `target`, marked as in use while the block runs; the block removes or renames it.

    It is new, or with `keep` the latest that a killed run left with that file in it.
    """
    handle, lock = (None if keep is None else _left_lock(target, keep)) or _new_lock(target)
    stage = lock.with_suffix("")
    try:
        stage.mkdir(0o700, exist_ok=keep is not None)
        yield stage
    finally:
        os.close(handle)
        # Without its lock, what could not be removed now would stay for ever.
        if not _stands(stage) and not _stands(moved_aside(stage)):
            lock.unlink(missing_ok=True)


def moved_aside(stage: Path) -> Path:
    """Where the repo that stood at the target waits until the new one stands there."""
    return stage.with_name(f"{stage.name}.old")


def sweep(target: Path, keep: str | None = None) -> None:
    """Remove what killed runs left beside `target`; a repo that one of them had moved aside goes back.

    A folder with the file `keep` in it stays.
    """
    with contextlib.suppress(OSError):
        for lock in _locks(target):
            _sweep(target, lock, keep)


def abandoned(target: Path, keep: str) -> Path | None:
    """The folder that `claimed` would go on with: the latest with the file `keep` in it where nobody works."""
    found = _left_lock(target, keep)
    if found is None:
        return None
    handle, lock = found
    os.close(handle)
    return lock.with_suffix("")


def _left(target: Path, keep: str) -> list[Path]:
    """The folders with the file `keep` in them that runs have left or are working in, the latest first."""
    with contextlib.suppress(OSError):
        stages = [lock.with_suffix("") for lock in _locks(target)]
        found = [stage for stage in stages if (stage / keep).is_file()]
        return sorted(found, key=lambda stage: (stage / keep).stat().st_mtime_ns, reverse=True)
    return []


def _locks(target: Path) -> list[Path]:
    ours = re.compile(re.escape(f".{target.name}.swaa-") + r"\w{8}" + re.escape(_LOCK))
    return [target.parent / name for name in os.listdir(target.parent) if ours.fullmatch(name)]


def _left_lock(target: Path, keep: str) -> tuple[int, Path] | None:
    """The lock of the latest folder that was left with the file `keep` in it, taken."""
    for stage in _left(target, keep):
        lock = stage.with_name(f"{stage.name}{_LOCK}")
        with contextlib.suppress(OSError):
            handle = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            taken = False
            try:
                taken = _take(handle) and _is_at(handle, lock)
            finally:
                if not taken:
                    os.close(handle)
            if taken:
                return handle, lock
    return None


def _sweep(target: Path, lock: Path, keep: str | None) -> None:
    with contextlib.suppress(OSError), _opened(lock) as handle:
        if not _take(handle) or not _is_at(handle, lock):
            return
        stage = lock.with_suffix("")
        old = moved_aside(stage)
        if _stands(old) and not _stands(target):
            old.rename(target)
        if keep is not None and (stage / keep).is_file():
            return
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        if not _stands(stage) and not _stands(old):
            lock.unlink()


def _new_lock(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.swaa-", suffix=_LOCK, dir=target.parent)
        try:
            taken = _take(handle)
        except OSError:
            # No locks here: nobody can sweep it either.
            return handle, Path(name)
        if taken and _is_at(handle, Path(name)):
            return handle, Path(name)
        # Another run swept it away before it was locked.
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock an open file; False if another process holds it, OSError where there are no locks."""
    if fcntl is None:
        raise OSError("no locks")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield handle
    finally:
        os.close(handle)


def _stands(path: Path) -> bool:
    return os.path.lexists(path)
