"""What a killed run has finished, so that `--resume` need not do it again.

In the folder in which a run works, a file says what the weights are made from, and then, a line each, which of
their files are finished, with size and SHA-256.
"""

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swaa_convert import __version__
from swaa_convert.hashing import Hasher
from swaa_convert.leftovers import abandoned
from swaa_convert.merge.adapter import Adapter
from swaa_convert.progress import Progress
from swaa_convert.source import Source
from swaa_convert.stamps import Stamps
from swaa_convert.system_errors import naming

FILE = ".swaa-progress.jsonl"


@dataclass(frozen=True)
class Finished:
    """A finished file's size in bytes and SHA-256."""

    size: int
    sha256: str


class Journal:
    """Writes down each finished file of the folder `stage`, whose weights are made from what `key` says."""

    def __init__(self, stage: Path, key: str) -> None:
        self._path, self._key = stage / FILE, key
        self._lock = threading.Lock()

    def begin(self, finished: dict[str, Finished]) -> None:
        """Start anew with what is finished already."""
        lines = [_line(key=self._key), *(_line(name=name, **vars(each)) for name, each in finished.items())]
        with naming(self._path):
            self._path.write_text("".join(lines), encoding="utf-8")

    def add(self, name: str, finished: Finished) -> None:
        """One more file is finished; from any thread."""
        with self._lock, naming(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(name=name, **vars(finished)))


def read_journal(stage: Path, key: str | None = None) -> dict[str, Finished]:
    """The files that a run has finished in `stage`; none if their weights were made from something else than `key`."""
    try:
        lines = (stage / FILE).read_text(encoding="utf-8").splitlines()
        first, *rest = [json.loads(line) for line in lines if line.endswith("}")]
        if key is not None and first["key"] != key:
            return {}
        return {str(each["name"]): Finished(int(each["size"]), str(each["sha256"])) for each in rest}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def reuse(stage: Path, key: str, hasher: Hasher, progress: Progress) -> dict[str, Finished]:
    """The finished files that are still what they were, by name; everything else in `stage` is removed."""
    listed = read_journal(stage, key)
    found = {name: each for name, each in listed.items() if _is_whole(stage, name, each, hasher, progress)}
    for path in stage.iterdir():
        if path.name not in found:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return found


def finished_bytes(target: Path) -> int:
    """How much room the weights take that a killed run has left for `target`; links take none."""
    stage = abandoned(target, FILE)
    if stage is None:
        return 0
    return sum(each.size for name, each in read_journal(stage).items() if not _is_linked(stage / name))


def weights_key(
    source: Source,
    stamps: Stamps,
    weights: Sequence[str],
    adapters: Sequence[Adapter],
    limit: int | None,
    *,
    link: bool,
) -> str:
    """Everything that decides the bytes of the weight files, and whether they are files of their own, as one text."""
    # As they were planned with: what changes meanwhile must fit no later run.
    files = {name: source.files[name] if source.revision else vars(stamps.of(source, name)) for name in weights}
    parts: dict[str, Any] = {
        "source": source.provenance,
        "files": files,
        "lora": [[adapter.provenance, adapter.settings_sha256] for adapter in adapters],
        "limit": limit,
        "link": link,
        "tool": __version__,
        "libraries": _libraries() if adapters else None,
    }
    return json.dumps(parts, sort_keys=True)


def _is_whole(stage: Path, name: str, finished: Finished, hasher: Hasher, progress: Progress) -> bool:
    path = stage / name
    if Path(name).name != name or path.is_symlink() or not path.is_file() or path.stat().st_size != finished.size:
        return False
    hasher.add(name, path, progress.advance)
    return hasher.result(name) == finished.sha256


def _is_linked(path: Path) -> bool:
    return path.is_file() and path.stat().st_nlink > 1


def _libraries() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("peft", "torch", "transformers")}


def _line(**values: Any) -> str:
    return json.dumps(values) + "\n"
