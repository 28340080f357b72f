"""What goes wrong while pushing, in one line each, and what is worth trying again."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from swaa_convert.errors import SwaaError
from swaa_convert.hub import first_line, network_errors, unlogged

_T = TypeVar("_T")
# The Hub is busy, or was for a moment.
BUSY = (408, 429, 500, 502, 503, 504)
TRIES = 5
# Seconds; the Hub's rate limits are counted over five minutes.
_LONGEST_WAIT = 300.0
# hf_xet says it in words.
_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
AGAIN = "run the command again, it goes on where it was"


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status that an error of the client stands for."""
    found = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(found, int):
        return found
    said = _STATUS.search(str(error))
    return int(said[1]) if said else None


def patiently(call: Callable[[], _T], *, statuses: tuple[int, ...] = BUSY, lost: bool = True) -> _T:
    """Call, and call again while the Hub is busy or, with `lost`, the connection is.

    The client tries again by itself to send files; its other requests it makes once, or did in older versions.
    """
    for count in range(TRIES):
        try:
            return call()
        except Exception as error:
            found = _network_error(error)
            if found is None or _is_offline(found) or count == TRIES - 1:
                raise
            status = status_of(found)
            if not (lost if status is None else status in statuses):
                raise
            time.sleep(_wait(found, count))
    raise AssertionError("not reached")


def _network_error(error: BaseException | None) -> BaseException | None:
    """What the Hub or the connection to it did; the client wraps what happened to one file in a RuntimeError."""
    while error is not None and not isinstance(error, network_errors()):
        error = error.__cause__
    return error


@contextmanager
def push_errors(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one line with the way out."""
    try:
        with unlogged():
            yield
    except SwaaError:
        raise
    except Exception as error:
        said = _said(error)
        if said is None:
            raise
        raise SwaaError(f"{repo_id}: {said}") from error


def _said(error: BaseException) -> str | None:
    from huggingface_hub import errors

    text = " ".join(str(error).split())
    if "metadata" in text.casefold() and "README" in text:
        return f"the Hub does not take the card ({text[:300]}): mend the source's README.md and convert again"
    if status_of(error) == 404 and "xet-write-token" in text:
        return "this Hub has no xet storage: set HF_HUB_DISABLE_XET=1"
    cause: BaseException | None = error
    while cause is not None:
        # The client wraps what happened to a file in a RuntimeError.
        if isinstance(cause, errors.LocalTokenNotFoundError):
            return "not logged in to the Hub: run `hf auth login`, or set HF_TOKEN"
        if _is_offline(cause):
            return "offline mode is on (HF_HUB_OFFLINE): unset it to push"
        if isinstance(cause, errors.RevisionNotFoundError):
            return "there is no such branch: check --revision"
        if (status := status_of(cause)) is not None:
            return _by_status(status, cause)
        if isinstance(cause, network_errors()):
            return f"the connection to the Hub broke off ({first_line(cause)}): {AGAIN}"
        cause = cause.__cause__
    known = isinstance(error, ValueError | RuntimeError) or type(error).__module__.split(".")[0] == "hf_xet"
    return f"the upload broke off ({text[:200] or type(error).__name__}): {AGAIN}" if known else None


def _by_status(status: int, error: BaseException) -> str:
    said = _server_says(error)
    if status == 401:
        return "the Hub refused the token: run `hf auth login` (HF_TOKEN goes first if it is set)"
    if status == 403:
        return f"the Hub does not allow it{said}: take a token with write access (`hf auth login`), or another repo id"
    if status == 404:
        return "there is no such repo, or the token cannot see it: check the id and `hf auth whoami`"
    if status in (409, 412):
        return f"it changed on the Hub meanwhile{said}: {AGAIN}"
    if status == 413:
        return f"the Hub finds the commit too large{said}: cut smaller files (--max-shard-size)"
    if status == 429:
        return f"the Hub asks for fewer requests: wait a few minutes and {AGAIN}"
    if status >= 500:
        return f"the Hub keeps answering {status}: wait a while and {AGAIN}"
    return f"the Hub answered {status}{said}"


def _server_says(error: BaseException) -> str:
    text = getattr(error, "server_message", None)
    return f" ({' '.join(str(text).split())[:200]})" if text else ""


def _is_offline(error: BaseException) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _wait(error: BaseException, count: int) -> float:
    """Seconds until the next try: what the Hub asks for, or 1, 2, 4, 8."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("Retry-After", ""))
    return min(float(asked), _LONGEST_WAIT) if asked.isdigit() else float(2**count)
