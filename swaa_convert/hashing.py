"""SHA-256 of files, computed by other threads."""

import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from swaa_convert.copying import Advance

# hashlib computes outside of Python's lock, so this many files are hashed at once.
_WORKERS = 4
# Small enough to stay in a processor's cache between reading and hashing.
_BLOCK = 1024**2
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Hasher:
    """Hashes files that are complete, several at once, and keeps the hashes of a conversion."""

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

    def add(self, name: str, path: Path, advance: Advance) -> None:
        """Hash a file; `advance` is told how many bytes more are hashed, from any thread but never from two at once."""
        self._found[name] = self._pool.submit(self._hash, path, advance)

    def know(self, name: str, sha256: str) -> None:
        """Take the hash of a file, which is known already."""
        self._found[name] = Future()
        self._found[name].set_result(sha256)

    def result(self, name: str) -> str:
        """One hash, once it is computed."""
        return self._found[name].result()

    def when_hashed(self, name: str, tell: Callable[[str], None]) -> None:
        """Tell the hash of a file, from any thread, once it is computed."""
        self._found[name].add_done_callback(lambda done: _tell(done, tell))

    def finish(self) -> dict[str, str]:
        """All hashes, by name, once they are computed."""
        return {name: future.result() for name, future in self._found.items()}

    def _hash(self, path: Path, advance: Advance) -> str:
        found, buffer = hashlib.sha256(), memoryview(bytearray(_BLOCK))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if self._stopped.is_set():
                    raise InterruptedError("the conversion was given up")
                found.update(buffer[:count])
                with self._lock:
                    advance(count)
        return found.hexdigest()


def _tell(done: Future[str], tell: Callable[[str], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        tell(done.result())


def known_sha256(path: Path) -> str | None:
    """The SHA-256 that the Hub gave a large file: the name under which its client keeps it.

    Small files are kept under git's name for them, which is shorter.
    """
    cached = path.parent.name == "blobs" and path.parent.parent.name.startswith("models--")
    return path.name if cached and _SHA256.fullmatch(path.name) else None
