"""What a push changes: what differs is sent, what an earlier push left over goes, all else stays."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from swaa_convert.errors import SwaaError
from swaa_convert.manifest import MANIFEST, FileEntry, dump_manifest
from swaa_convert.plan import CARD
from swaa_convert.publish.errors import status_of
from swaa_convert.publish.local import Verified
from swaa_convert.publish.pinned import card_for, has_loading_code, pin_of
from swaa_convert.publish.remote import Remote, RemoteFile, files_at
from swaa_convert.weights import INDEX, SINGLE

# Files that transformers would load before ours, or on top of them, if somebody else's stood beside ours.
_SHADOWING = (SINGLE, INDEX, "adapter_config.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Delta:
    """The difference between a verified folder and a repo on the Hub.

    Parameters
    ----------
    send:
        Files of the folder that are not there, or other there; the card and the manifest apart.
    remove:
        Files that an earlier push wrote and this one does not have.
    their_card:
        The card on the Hub, if someone else wrote or changed it: it stays.
    pin:
        The commit that the card there names, if all of this, that commit included, is there already.
    theirs:
        Files that stand there just as they would be sent, but which no push wrote: none will remove them.
    """

    send: tuple[str, ...]
    remove: tuple[str, ...]
    their_card: bytes | None = None
    pin: str | None = None
    theirs: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything but the card and the manifest differs."""
        return bool(self.send or self.remove)


def delta(local: Verified, remote: Remote) -> Delta:
    """Compare; refused if the push would replace what no push of ours wrote, or if something would shadow it."""
    send = tuple(name for name in _files(local) if not is_there(local, name, remote.files.get(name)))
    leftover = [name for name in remote.files if name not in (*local.manifest.files, MANIFEST, CARD)]
    remove = tuple(name for name in leftover if name in remote.written and remote.is_ours(name))
    _refuse_strange(remote, send, [name for name in leftover if name not in remove])
    theirs = tuple(
        name for name in _files(local) if name in remote.files and name not in send and name not in remote.written
    )
    found = Delta(send, remove, _their_card(local, remote), theirs=theirs)
    return found if found.changes or remote.head is None else replace(found, pin=_pin(local, remote, found))


def is_there(local: Verified, name: str, there: RemoteFile | None) -> bool:
    """Whether a file on the Hub has the content of the folder's."""
    entry = local.manifest.files[name]
    if there is None or there.size != entry.size:
        return False
    return (
        there.sha256 == entry.sha256 if there.sha256 else there.blob == git_blob(local.repo.path_of(name).read_bytes())
    )


def are_there(files: Mapping[str, bytes], remote: Remote) -> bool:
    """Whether small files stand on the Hub with just this content."""
    return all(name in remote.files and _is(data, remote.files[name]) for name, data in files.items())


def git_blob(data: bytes) -> str:
    """The SHA-1 by which git, and so the Hub, knows a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def card_and_manifest(local: Verified, change: Delta, repo_id: str, revision: str) -> dict[str, bytes]:
    """Both as they belong on the Hub, with the loading code for `revision`; a card of others is listed as it is."""
    entries, files = dict(local.manifest.files), {}
    if local.card is not None:
        card = change.their_card
        if card is None:
            card = files[CARD] = card_for(local.card, repo_id, revision)
        entries[CARD] = FileEntry(len(card), hashlib.sha256(card).hexdigest())
    return {**files, MANIFEST: dump_manifest(replace(local.manifest, files=entries, theirs=change.theirs))}


def _files(local: Verified) -> Iterable[str]:
    return (name for name in local.manifest.files if name != CARD)


def _their_card(local: Verified, remote: Remote) -> bytes | None:
    if local.card is None or CARD not in remote.files:
        return None
    card = remote.read(CARD)
    return None if remote.is_ours(CARD) and _is_as_pushed(remote, card) else card


def _is_as_pushed(remote: Remote, card: bytes) -> bool:
    """Whether a card is the one of the commit that it names, where it stood before it could name it.

    An edited card is not, also when a later push has listed it in the manifest.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    pin = pin_of(card)
    if pin is None:
        return has_loading_code(card)
    try:
        first = remote.read(CARD, pin)
    except EntryNotFoundError:
        return True
    except HfHubHTTPError as error:
        if status_of(error) != 404:
            raise
        return False
    return card_for(first, remote.repo_id, pin) == card_for(card, remote.repo_id, pin)


def _refuse_strange(remote: Remote, send: Iterable[str], others: Iterable[str]) -> None:
    replaced = [name for name in (*send, MANIFEST) if name in remote.files and not remote.is_ours(name)]
    if replaced:
        raise SwaaError(
            f"{remote.repo_id} holds {_listed(replaced)}, which no push of swaa-convert wrote, or which changed since: "
            "push to another repo, or remove it there first"
        )
    shadowing = [name for name in others if name in _SHADOWING]
    if shadowing:
        raise SwaaError(
            f"{remote.repo_id} holds {_listed(shadowing)} of something else, which would be loaded with this repo: "
            "push to another repo, or remove it there first"
        )


def _pin(local: Verified, remote: Remote, change: Delta) -> str | None:
    """The commit that is pinned already, if card, manifest and that commit are as they should be."""
    if CARD not in remote.files or MANIFEST not in remote.files:
        return None
    pin = remote.head if change.their_card is not None or local.card is None else pin_of(remote.read(CARD))
    if pin is None:
        return None
    expected = card_and_manifest(local, change, remote.repo_id, pin)
    if not are_there(expected, remote):
        return None
    there = remote.files if pin == remote.head else _files_at(remote, pin)
    return pin if all(is_there(local, name, there.get(name)) for name in _files(local)) else None


def _files_at(remote: Remote, commit: str) -> Mapping[str, RemoteFile]:
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        return files_at(remote.api, remote.repo_id, commit)
    except RevisionNotFoundError:
        return {}


def _is(data: bytes, there: RemoteFile) -> bool:
    return there.sha256 == hashlib.sha256(data).hexdigest() if there.sha256 else there.blob == git_blob(data)


def _listed(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
