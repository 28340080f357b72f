"""SHA-256 of files, computed by other threads while the files are still being copied."""

import contextlib
import hashlib
import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from swaa_convert.copying import Advance

# hashlib computes outside of Python's lock, so this many files are hashed at once.
_WORKERS = 4
# Small enough to stay in a processor's cache between reading and hashing.
_BLOCK = 1024**2
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Counts = SimpleQueue[int | None]


class Hasher:
    """Hashes the files of one conversion.

    Copying writes at the speed of the disk, and what was just written is read back from memory: a copy and its
    hash take about as long as the slower of the two.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="sha256")
        self._found: dict[str, Future[str]] = {}
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "Hasher":
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def following(self, name: str, path: Path, advance: Advance, known: str | None = None) -> Iterator[Advance]:
        """Hash the file `path` while the block writes it; a hash that is `known` already is taken as it is.

        The block tells what it is given how many bytes more it wrote. `advance` is told the same when they are
        hashed too, from any thread but never from two at once.
        """
        if known is not None:
            self._found[name] = Future()
            self._found[name].set_result(known)
            yield advance
            return
        written: _Counts = SimpleQueue()
        self._found[name] = self._pool.submit(self._follow, path, written, advance)
        try:
            yield written.put
        finally:
            written.put(None)

    def add(self, name: str, path: Path, advance: Advance) -> None:
        """Hash a file that is complete."""
        with self.following(name, path, advance):
            pass

    def result(self, name: str) -> str:
        """One hash, once it is computed."""
        return self._found[name].result()

    def when_hashed(self, name: str, tell: Callable[[str], None]) -> None:
        """Tell the hash of a file that is complete, from any thread, once it is computed."""
        self._found[name].add_done_callback(lambda done: _tell(done, tell))

    def finish(self) -> dict[str, str]:
        """All hashes, by name, once they are computed."""
        return {name: future.result() for name, future in self._found.items()}

    def _follow(self, path: Path, written: _Counts, advance: Advance) -> str:
        found, buffer = hashlib.sha256(), memoryview(bytearray(_BLOCK))
        count = written.get()
        with path.open("rb", buffering=0) as file:
            while count is not None:
                self._take(found, file, buffer, count, advance)
                count = written.get()
            # A hash of less than the whole would be wrong, whatever was told.
            self._take(found, file, buffer, sys.maxsize, advance)
        return found.hexdigest()

    def _take(self, found: Any, file: io.FileIO, buffer: memoryview, count: int, advance: Advance) -> None:
        """Hash the next `count` bytes; fewer if the file is shorter."""
        while count > 0 and (got := file.readinto(buffer[: min(count, _BLOCK)])):
            if self._stopped.is_set():
                raise InterruptedError("the conversion was given up")
            found.update(buffer[:got])
            count -= got
            with self._lock:
                advance(got)


def _tell(done: Future[str], tell: Callable[[str], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        tell(done.result())


def known_sha256(path: Path) -> str | None:
    """The SHA-256 that the Hub gave a large file: the name under which its client keeps it.

    Small files are kept under git's name for them, which is shorter.
    """
    cached = path.parent.name == "blobs" and path.parent.parent.name.startswith("models--")
    return path.name if cached and _SHA256.fullmatch(path.name) else None
