"""One push from beginning to end: account, repo, folder, difference, commits, tag."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swaa_convert import __version__
from swaa_convert.copying import Advance
from swaa_convert.errors import SwaaError
from swaa_convert.hub import progress_bars
from swaa_convert.publish.account import check_write, full_id
from swaa_convert.publish.delta import Delta, are_there, card_and_manifest, delta
from swaa_convert.publish.errors import patiently, push_errors, status_of
from swaa_convert.publish.local import Verified, verified
from swaa_convert.publish.remote import Remote, read_remote
from swaa_convert.publish.upload import Commit, Committed, send
from swaa_convert.publish.wanted import MAIN, Wanted

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Parameters
    ----------
    pin:
        The commit that the card's loading code names; all files are in it.
    head:
        The commit that the branch names now: the one with that card.
    done:
        Whether anything was changed.
    pull_request:
        Where it was proposed, if it was.
    """

    repo_id: str
    pin: str
    head: str
    done: bool
    pull_request: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A folder, a repo on the Hub and what is to be done."""

    wanted: Wanted
    local: Verified
    remote: Remote
    delta: Delta


def open_remote(wanted: Wanted) -> Remote:
    """Where the push goes; refused if the account may not, or if what was asked for cannot be had there."""
    from huggingface_hub import HfApi

    with push_errors(wanted.repo_id), progress_bars(shown=False):
        # The token of the client's own places, also where its implicit use is switched off.
        api = HfApi(token=True, library_name="swaa-convert", library_version=__version__)
        repo_id = full_id(api, wanted.repo_id, create_pr=wanted.create_pr)
        remote = read_remote(api, repo_id, wanted)
        if remote.head is not None and not wanted.create_pr:
            check_write(api, remote.repo_id)
        _check(remote, wanted)
    return remote


def prepare(folder: Path, wanted: Wanted, advance: Advance = lambda count: None) -> Prepared:
    """Everything that can be found out before anything is sent."""
    remote = open_remote(wanted)
    local = verified(folder, advance)
    with push_errors(remote.repo_id), progress_bars(shown=False):
        found = delta(local, remote)
    tagged = remote.tags.get(wanted.tag or "")
    if tagged is not None and (found.pin is None or tagged != remote.head):
        raise SwaaError(f"{remote.repo_id} has a tag {wanted.tag} already, for {tagged[:12]}: choose another --tag")
    return Prepared(wanted, local, remote, found)


def push(prepared: Prepared, *, quiet: bool = True) -> Pushed:
    """Send what differs; the branch moves once everything is there."""
    wanted, remote = prepared.wanted, prepared.remote
    with push_errors(remote.repo_id), progress_bars(shown=not quiet):
        if prepared.delta.pin is None:
            result = _commits(prepared, _made(remote, wanted))
        else:
            if not remote.has_branch:
                _made(remote, wanted)
            result = Pushed(remote.repo_id, prepared.delta.pin, str(remote.head), done=not remote.has_branch)
        if wanted.tag is not None and wanted.tag not in remote.tags:
            tag, head = wanted.tag, result.head
            patiently(lambda: remote.api.create_tag(remote.repo_id, tag=tag, revision=head, exist_ok=True))
            return Pushed(result.repo_id, result.pin, result.head, done=True)
    return result


def _check(remote: Remote, wanted: Wanted) -> None:
    if remote.head is None and wanted.create_pr:
        raise SwaaError(f"{remote.repo_id} does not exist, so there is nothing to open a pull request in")
    if remote.head is not None and wanted.private and not remote.private:
        raise SwaaError(f"{remote.repo_id} exists and is public: make it private in its settings, or drop --private")
    if wanted.on.startswith("refs/") and not remote.has_branch:
        raise SwaaError(f"{remote.repo_id} has no {wanted.on}: open a pull request with --create-pr")
    if wanted.create_pr and not remote.has_branch:
        raise SwaaError(f"{remote.repo_id} has no branch {wanted.on} to open a pull request against: check --revision")


def _made(remote: Remote, wanted: Wanted) -> str | None:
    """The commit to stand on, with repo and branch made if need be."""
    api, repo_id, head = remote.api, remote.repo_id, remote.head
    if head is None:
        _create(api, repo_id, private=wanted.private)
        head = patiently(lambda: api.model_info(repo_id)).sha
    if wanted.on != MAIN and not remote.has_branch:
        patiently(lambda: api.create_branch(repo_id, branch=wanted.on, revision=head, exist_ok=True))
    return head


def _create(api: "HfApi", repo_id: str, *, private: bool) -> None:
    try:
        # Not private means what the account or its organization has as default.
        patiently(lambda: api.create_repo(repo_id, private=True if private else None))
    except OSError as error:
        if status_of(error) != 409:
            raise
        raise SwaaError(f"{repo_id} exists already, and the token cannot see it: choose another id") from error


def _commits(prepared: Prepared, head: str | None) -> Pushed:
    """The commit with everything, if a push before hasn't made it, and then the one whose card names it."""
    remote, local, wanted, found = prepared.remote, prepared.local, prepared.wanted, prepared.delta
    made = Committed(str(head), wanted.on)
    first = card_and_manifest(local, found, remote.repo_id, wanted.on)
    if found.changes or not are_there(first, remote):
        message = wanted.message or f"Converted by swaa-convert {local.manifest.tool}"
        commit = Commit(remote.repo_id, wanted.on, head, message, wanted.create_pr, found.remove)
        files = {name: (local.repo.path_of(name), local.manifest.files[name].sha256) for name in found.send}
        made = send(remote.api, commit, files, first)
    if local.card is None or found.their_card is not None:
        return Pushed(remote.repo_id, made.oid, made.oid, done=True, pull_request=made.pull_request)
    written = card_and_manifest(local, found, remote.repo_id, made.oid)
    message = f"Model card: load {made.oid[:12]}"
    # The pull request is open by now, or this change is all that it proposes.
    opens = wanted.create_pr and made.pull_request is None
    pinned = send(remote.api, Commit(remote.repo_id, made.branch, made.oid, message, opens), {}, written)
    address = made.pull_request or pinned.pull_request
    return Pushed(remote.repo_id, made.oid, pinned.oid, done=True, pull_request=address)
