"""Where a checkpoint comes from: a local folder or a model on the Hub, behind one face."""

import errno
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swaa_convert.errors import SwaaError, SwaaUsageError
from swaa_convert.strict_json import parse_json

# Small files are read whole; anything larger under these names is not what its name says.
MAX_SMALL_FILE = 256 * 1024**2
_CACHED_SNAPSHOT = re.compile(r"models--(?P<id>.+)")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


@dataclass(frozen=True)
class Download:
    """The folder that files are fetched to, and how many of their bytes are not there yet."""

    folder: Path
    size: int


@dataclass(frozen=True)
class Source(ABC):
    """A checkpoint to convert. It is read, never changed.

    Parameters
    ----------
    name:
        The Hub id, or a local folder's name.
    repo_id:
        The Hub id, where there is one.
    revision:
        The commit that is converted, where there is one.
    files:
        Relative names of its files and their sizes in bytes.
    """

    name: str
    repo_id: str | None
    revision: str | None
    files: Mapping[str, int]

    @abstractmethod
    def path_of(self, name: str) -> Path:
        """One small file, fetched if need be."""

    @abstractmethod
    def fetch(self, names: Iterable[str], *, quiet: bool) -> None:
        """Bring all of these files here, so that `path_of` finds them."""

    def to_fetch(self, names: Iterable[str]) -> Download | None:
        """What `fetch` would bring here; None: nothing is ever fetched."""
        return None

    def strange(self) -> dict[str, str]:
        """What stands where files stand but is none, and what it is."""
        return {}

    def read(self, name: str) -> bytes:
        """The bytes of a small file."""
        if self.files[name] > MAX_SMALL_FILE:
            raise SwaaError(f"{self.name}: {name} is absurdly large ({self.files[name]} bytes)")
        return self.path_of(name).read_bytes()

    def read_json(self, name: str) -> dict[str, Any]:
        """A small file that must hold one JSON object."""
        try:
            value = parse_json(self.read(name))
        except ValueError as error:
            raise SwaaError(f"{self.name}: {name} is not valid JSON ({error}): mend it, or fetch it again") from error
        if not isinstance(value, dict):
            raise SwaaError(
                f"{self.name}: {name} must hold a JSON object, not a {type(value).__name__}: fetch it again"
            )
        return value

    @property
    def provenance(self) -> dict[str, str | None]:
        """What swaa_recipe.yaml keeps of it: never a path of this machine."""
        known = {"id": self.repo_id} if self.repo_id else {"name": self.name}
        return {**known, "revision": self.revision} if self.revision else {**known}


@dataclass(frozen=True)
class LocalSource(Source):
    """A folder on this machine; `what` it holds, in words."""

    root: Path
    what: str = "source"

    def path_of(self, name: str) -> Path:
        return _inside(self.root, name, self.what)

    def fetch(self, names: Iterable[str], *, quiet: bool) -> None:
        for name in names:
            self.path_of(name)

    def strange(self) -> dict[str, str]:
        return {
            path.relative_to(self.root).as_posix(): _kind(path) for path in _entries(self.root) if not path.is_file()
        }


def open_source(source: str | Path, revision: str | None, *, quiet: bool) -> Source:
    """The local folder or the Hub model that SOURCE names."""
    if not str(source):
        raise SwaaError("SOURCE is empty: give a folder or a Hub model such as Qwen/Qwen3-8B")
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise SwaaUsageError(f"--revision is for Hub models, but {source} is a local folder: drop --revision")
        return local_source(path)
    if path.exists():
        raise SwaaError(f"{source} is a file: give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(str(source)) or str(source).startswith("."):
        raise SwaaError(f"no folder {source} (a Hub model is written as in Qwen/Qwen3-8B)")
    from swaa_convert.hub import open_hub_source

    return open_hub_source(str(source), revision, quiet=quiet)


def local_source(path: Path, repo_id: str | None = None, what: str = "source") -> LocalSource:
    """A folder as a source; inside the Hub's cache its path says the id and the commit."""
    root = path.resolve()
    cached = _CACHED_SNAPSHOT.fullmatch(root.parent.parent.name) if root.parent.name == "snapshots" else None
    if cached is not None:
        repo_id = repo_id or cached["id"].replace("--", "/")
    revision = root.name if cached is not None else None
    return LocalSource(repo_id or root.name, repo_id, revision, _list(root), root, what)


def _list(root: Path) -> dict[str, int]:
    """Files at the top and one folder down; deeper ones never belong to a checkpoint."""
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in _entries(root) if path.is_file()}


def _entries(root: Path) -> list[Path]:
    # Unlike a glob, this says so if the folder may not be read.
    return sorted([*root.iterdir(), *root.glob("additional_chat_templates/*")])


def _kind(path: Path) -> str:
    """What a path is that is no file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return "a link to itself" if error.errno == errno.ELOOP else "a link to nothing"
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _inside(root: Path, name: str, what: str) -> Path:
    """The real file behind `name`: in the folder, or among the blobs of the Hub cache around it."""
    real = (root / name).resolve()
    homes = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(real.is_relative_to(home) for home in homes):
        raise SwaaError(f"{root.name}: {name} is a link out of the {what} folder: replace it by the file itself")
    return real
