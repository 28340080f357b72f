"""The repo on the Hub as it is before a push: its files, and which of them an earlier push wrote."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from swaa_convert.errors import SwaaError
from swaa_convert.manifest import MANIFEST, FileEntry, read_manifest
from swaa_convert.publish.errors import patiently
from swaa_convert.publish.wanted import MAIN, Wanted
from swaa_convert.source import local_source

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub: its size, its git blob's SHA-1 and, for a large file, its SHA-256."""

    size: int
    blob: str
    sha256: str | None


@dataclass(frozen=True)
class Remote:
    """A repo on the Hub at one commit.

    Parameters
    ----------
    repo_id:
        Its id, as the Hub writes it.
    head:
        The commit that the branch names, or, if there is no such branch yet, main's; None: there is no repo.
    has_branch:
        Whether the branch exists.
    private:
        Whether only some may read it.
    files:
        Its files at `head`.
    written:
        What the manifest at `head` says that a push of ours wrote there.
    tags:
        Its tags and their commits.
    """

    api: "HfApi"
    repo_id: str
    head: str | None = None
    has_branch: bool = False
    private: bool = False
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    written: Mapping[str, FileEntry] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str, commit: str | None = None) -> bytes:
        """A small file, at `head` or at another commit."""
        return _fetched(self.api, self.repo_id, commit or self.head, name)

    def is_ours(self, name: str) -> bool:
        """Whether a file is as an earlier push wrote it."""
        if name == MANIFEST:
            return bool(self.written)
        entry, there = self.written.get(name), self.files[name]
        if entry is None:
            return False
        if there.sha256 is not None:
            return there.sha256 == entry.sha256
        return there.size == entry.size and hashlib.sha256(self.read(name)).hexdigest() == entry.sha256


def read_remote(api: "HfApi", repo_id: str, wanted: Wanted) -> Remote:
    """The repo now; one that does not exist, or that the token cannot see, has no head."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info: ModelInfo = patiently(lambda: api.model_info(repo_id))
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return Remote(api, repo_id)
    try:
        asked = info if wanted.on == MAIN else patiently(lambda: api.model_info(repo_id, revision=wanted.on))
        has_branch = True
    except RevisionNotFoundError:
        asked, has_branch = info, False
    name, head = info.id or repo_id, asked.sha
    if head is None:
        raise SwaaError(f"{name}: the Hub names no commit: try again later")
    files = files_at(api, name, head)
    refs = patiently(lambda: api.list_repo_refs(name)) if wanted.tag else None
    return Remote(
        api,
        name,
        head=head,
        has_branch=has_branch,
        private=bool(info.private),
        files=files,
        written=_written(api, name, head) if MANIFEST in files else {},
        tags={tag.name: tag.target_commit for tag in refs.tags} if refs else {},
    )


def files_at(api: "HfApi", repo_id: str, commit: str) -> dict[str, RemoteFile]:
    """The files of a repo at a commit."""
    from huggingface_hub.hf_api import RepoFile

    listed = patiently(lambda: list(api.list_repo_tree(repo_id, revision=commit, recursive=True)))
    return {
        one.path: RemoteFile(one.size, one.blob_id, one.lfs.sha256 if one.lfs else None)
        for one in listed
        if isinstance(one, RepoFile)
    }


def _written(api: "HfApi", repo_id: str, commit: str) -> Mapping[str, FileEntry]:
    """What the manifest on the Hub says pushes wrote; nothing if it is no manifest that this version reads."""
    with tempfile.TemporaryDirectory(prefix="swaa-push-") as folder:
        (Path(folder) / MANIFEST).write_bytes(_fetched(api, repo_id, commit, MANIFEST))
        try:
            manifest = read_manifest(local_source(Path(folder)))
        except SwaaError:
            return {}
    if manifest is None:
        return {}
    return {name: entry for name, entry in manifest.files.items() if name not in manifest.theirs}


def _fetched(api: "HfApi", repo_id: str, commit: str | None, name: str) -> bytes:
    # Not into the user's cache: a part of a repo there would be taken for the repo when offline.
    with tempfile.TemporaryDirectory(prefix="swaa-push-") as folder:
        path = patiently(lambda: api.hf_hub_download(repo_id, name, revision=commit, local_dir=folder))
        return Path(path).read_bytes()
