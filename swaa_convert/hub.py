"""A model on the Hub as a source: pinned to a commit, and only the files that are needed are fetched."""

import glob
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from swaa_convert.errors import SwaaError
from swaa_convert.hub_cache import still_to_fetch
from swaa_convert.interruptible import interruptible
from swaa_convert.source import Download, LocalSource, Source, local_source

_CLIENTS = ("requests", "httpx", "httpx2")


@dataclass(frozen=True)
class HubSource(Source):
    """A model on the Hub, at the commit that `asked` (default: the main branch) named; it has the file `first`.

    `blobs`: the name under which the client's cache keeps what a file holds.
    """

    asked: str | None
    first: str = "config.json"
    blobs: Mapping[str, str] = field(default_factory=dict)

    def path_of(self, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        with hub_errors(self.name, self.revision), progress_bars(shown=False):
            return Path(hf_hub_download(self.name, name, revision=self.revision)).resolve()

    def fetch(self, names: Iterable[str], *, quiet: bool) -> None:
        from huggingface_hub import hf_hub_download, snapshot_download

        with hub_errors(self.name, self.revision), progress_bars(shown=False):
            # Only when asked by branch does the client's cache learn its commit, which offline runs look up.
            hf_hub_download(self.name, self.first, revision=self.asked)
        with hub_errors(self.name, self.revision), progress_bars(shown=not quiet):
            wanted = [glob.escape(name) for name in names]
            interruptible(lambda: snapshot_download(self.name, revision=self.revision, allow_patterns=wanted))

    def to_fetch(self, names: Iterable[str]) -> Download:
        return still_to_fetch(self.name, self.revision, self.files, self.blobs, names)


def open_hub_source(repo_id: str, revision: str | None, *, quiet: bool, first: str = "config.json") -> Source:
    """A Hub model at the commit that `revision` (default: the main branch) names now.

    Offline, the copy in the Hub client's cache is taken; it is found by the file `first`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    try:
        with hub_errors(repo_id, revision, reachable=False):
            info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
    except HFValidationError as error:
        raise SwaaError(f"{repo_id} is neither a folder nor a Hub model's id such as Qwen/Qwen3-8B") from error
    except _Unreachable:
        found = _cached(repo_id, revision, first)
        if not quiet:
            click.echo(f"Offline: {repo_id} as far as the Hub's cache has it ({len(found.files)} files)", err=True)
        return found
    files = {file.rfilename: file.size or 0 for file in info.siblings or []}
    blobs = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id or "" for file in info.siblings or []}
    name = info.id or repo_id
    return HubSource(name, name, info.sha, files, asked=revision, first=first, blobs=blobs)


class _Unreachable(Exception):
    """The Hub did not answer."""


def _cached(repo_id: str, revision: str | None, first: str) -> LocalSource:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_OFFLINE as offline

    try:
        found = hf_hub_download(repo_id, first, revision=revision, local_files_only=True)
    except Exception as error:
        pinned = f" at {revision}" if revision else ""
        away = "offline mode is on" if offline else "the Hub cannot be reached"
        raise SwaaError(
            f"{repo_id}{pinned} is no local folder, {away} and the Hub's cache has no copy: "
            "check the name and the connection"
        ) from error
    return local_source(Path(found).parent, repo_id)


@contextmanager
def hub_errors(repo_id: str, revision: str | None, *, reachable: bool = True) -> Iterator[None]:
    """Turn what the Hub client raises into one line with the way out.

    With `reachable` False, a Hub that does not answer is left to the caller, who may have a copy.
    """
    from huggingface_hub import errors

    try:
        with unlogged():
            yield
    except errors.GatedRepoError as error:
        raise SwaaError(f"{repo_id} is gated: accept its terms on its page, then run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise SwaaError(f"{repo_id} has no revision {revision!r}: check --revision") from error
    except errors.RepositoryNotFoundError as error:
        raise SwaaError(f"no folder and no Hub model {repo_id} (a private one needs `hf auth login`)") from error
    except errors.HfHubHTTPError as error:
        raise SwaaError(f"{repo_id}: {_status(error)}") from error
    except network_errors() as error:
        if not reachable:
            raise _Unreachable(first_line(error)) from error
        raise SwaaError(
            f"{repo_id}: the download broke off ({first_line(error)}): run the command again, it resumes"
        ) from error
    except OSError as error:
        # Not the system's: the client found fewer bytes than the Hub had announced.
        if error.errno is not None:
            raise
        raise SwaaError(f"{repo_id}: {first_line(error)}: run the command again") from error


@contextmanager
def unlogged() -> Iterator[None]:
    """The client logs each attempt to go on; what comes of it is said in one line."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _status(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the Hub refused the token: run `hf auth login`"
    if status == 403:
        return "the Hub does not allow access: ask its owner, or run `hf auth login` with an account that may"
    if status == 429:
        return "the Hub asks for fewer requests: wait a minute and run it again"
    return f"the Hub answered {status}: try again later" if status else first_line(error)


def network_errors() -> tuple[type[BaseException], ...]:
    """What a lost connection raises in the library that this version of the client speaks through."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    library = [kind for kind in HfHubHTTPError.__mro__ if kind.__module__.split(".")[0] in _CLIENTS]
    return (*library, LocalEntryNotFoundError, ConnectionError, TimeoutError)


@contextmanager
def progress_bars(*, shown: bool) -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
