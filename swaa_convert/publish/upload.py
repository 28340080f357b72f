"""Sending: weights a few files at a time, then one commit that holds everything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swaa_convert.errors import SwaaError
from swaa_convert.hub import network_errors
from swaa_convert.interruptible import interruptible
from swaa_convert.publish.delta import git_blob
from swaa_convert.publish.errors import AGAIN, patiently, status_of
from swaa_convert.publish.remote import RemoteFile, files_at

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

# As many as the client sends at once; what is sent of a batch need not be sent again.
_BATCH = 5
_SMALL = 64 * 1024**2


@dataclass(frozen=True)
class Commit:
    """One commit to make.

    Parameters
    ----------
    repo_id, branch, parent:
        Where, and the commit that it must stand on, so that nothing that came meanwhile is lost.
    message:
        Its first line.
    create_pr:
        Open a pull request with it.
    remove:
        Files that it removes.
    """

    repo_id: str
    branch: str
    parent: str | None
    message: str
    create_pr: bool = False
    remove: Sequence[str] = ()


@dataclass(frozen=True)
class Committed:
    """A commit on the Hub; `branch` is the pull request's, where one was opened, and `pull_request` its address."""

    oid: str
    branch: str
    pull_request: str | None = None


def send(
    api: "HfApi", commit: Commit, files: Mapping[str, tuple[Path, str]], written: Mapping[str, bytes]
) -> Committed:
    """Send files and commit them.

    Parameters
    ----------
    files:
        By name in the repo, a file of the folder and its SHA-256.
    written:
        By name in the repo, content that is in no file.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    adds: list[CommitOperationAdd] = []
    for names in _batches(files):
        batch = [_add(name, *files[name]) for name in names]
        _preupload(api, commit, batch)
        adds += batch
    adds += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in written.items()]
    removed = [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in commit.remove]

    def call() -> "CommitInfo":
        return api.create_commit(
            commit.repo_id,
            [*adds, *removed],
            commit_message=commit.message,
            revision=commit.branch,
            create_pr=commit.create_pr,
            parent_commit=commit.parent,
        )

    if commit.create_pr:
        # A pull request that was opened unheard would be opened twice: only a refusal is asked again.
        info = patiently(call, statuses=(429,), lost=False)
        return Committed(info.oid, info.pr_revision or commit.branch, info.pr_url)
    return Committed(_heard(api, commit, call, adds), commit.branch)


def _batches(files: Mapping[str, tuple[Path, str]]) -> Iterator[list[str]]:
    """Small files at once, and then a few large ones at a time."""
    large = sorted(name for name, (path, _) in files.items() if path.stat().st_size > _SMALL)
    small = sorted(files.keys() - set(large))
    if small:
        yield small
    for start in range(0, len(large), _BATCH):
        yield large[start : start + _BATCH]


def _add(name: str, path: Path, sha256: str) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    add = CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
    if not getattr(add.upload_info, "is_hashed", True):
        # Clients from 2 on hash late; this file's hash was checked a moment ago.
        add.upload_info.sha256 = bytes.fromhex(sha256)
    if add.upload_info.sha256.hex() != sha256:
        raise SwaaError(f"{name} changed while it was pushed: {AGAIN}")
    return add


def _preupload(api: "HfApi", commit: Commit, batch: "list[CommitOperationAdd]") -> None:
    def call() -> None:
        api.preupload_lfs_files(
            commit.repo_id,
            batch,
            revision=commit.branch,
            create_pr=commit.create_pr,
            free_memory=False,
        )

    interruptible(lambda: patiently(call))


def _heard(api: "HfApi", commit: Commit, call: Callable[[], "CommitInfo"], adds: "Sequence[CommitOperationAdd]") -> str:
    """The commit's id; if its answer was lost, a second try finds that it stands there."""
    try:
        return str(patiently(call).oid)
    except network_errors() as error:
        if status_of(error) not in (409, 412):
            raise
        head = patiently(lambda: api.model_info(commit.repo_id, revision=commit.branch)).sha
        there = files_at(api, commit.repo_id, str(head))
        if head == commit.parent or not all(_stands(add, there) for add in adds) or there.keys() & set(commit.remove):
            raise
        return str(head)


def _stands(add: "CommitOperationAdd", there: Mapping[str, RemoteFile]) -> bool:
    found = there.get(add.path_in_repo)
    if found is None or found.size != add.upload_info.size:
        return False
    if found.sha256 is not None:
        return found.sha256 == add.upload_info.sha256.hex()
    with add.as_file() as file:
        return found.blob == git_blob(file.read())
