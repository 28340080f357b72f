"""A repo on the fake Hub: commits, each a whole tree, and what points to them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + "0" * 34
Tree = dict[str, bytes]


@dataclass
class Repo:
    """Commits by id, and branches, pull requests and tags by name."""

    private: bool = False
    commits: dict[str, Tree] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, *, private: bool = False, **files: bytes) -> "Repo":
        """As the Hub creates it, with a first commit."""
        repo = cls(private=private)
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n", **files}, "initial commit")
        return repo

    @property
    def head(self) -> Tree:
        return self.commits[self.refs["main"]]

    def commit(self, ref: str, tree: Tree, message: str) -> str:
        self.messages.append(message)
        seed = f"{ref} {len(self.commits)} {message} {sorted(tree)}"
        self.refs[ref] = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[self.refs[ref]] = dict(tree)
        return self.refs[ref]

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's id names."""
        found = self.refs.get(revision) or self.tags.get(revision) or revision
        return found if found in self.commits else None

    def tree(self, commit: str) -> Tree:
        return self.commits[commit]

    def is_large(self, name: str) -> bool:
        return name.endswith(".safetensors")


@dataclass
class FolderRepo(Repo):
    """A folder as a public repo with one commit, read anew each time; its files are all sent without a redirect."""

    folder: Path = Path()

    def resolve(self, revision: str) -> str | None:
        return COMMIT if revision in ("main", COMMIT) else None

    def tree(self, commit: str) -> Tree:
        paths = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}

    def is_large(self, name: str) -> bool:
        return False


def blob_id(data: bytes) -> str:
    """git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def info(name: str, repo: Repo, commit: str) -> dict[str, Any]:
    """/api/models/NAME."""
    tree = repo.tree(commit)
    siblings = [{"rfilename": path, "size": len(data), "blobId": blob_id(data)} for path, data in tree.items()]
    known = {"private": repo.private, "gated": False, "disabled": False, "tags": [], "siblings": siblings}
    return {"_id": "1", "id": name, "modelId": name, "sha": commit, **known}


def listing(repo: Repo, commit: str) -> list[dict[str, Any]]:
    """/api/models/NAME/tree/REVISION, recursively."""
    return [_entry(path, data, repo.is_large(path)) for path, data in sorted(repo.tree(commit).items())]


def _entry(path: str, data: bytes, large: bool) -> dict[str, Any]:
    lfs = {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}} if large else {}
    pointer = b"pointer to " + sha256(data).encode()
    return {"type": "file", "path": path, "size": len(data), "oid": blob_id(pointer if large else data), **lfs}
