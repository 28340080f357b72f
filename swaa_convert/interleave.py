"""The words for which layers keep full attention: odd, even, every:N, every:N+K, none, auto."""

import re

from swaa_convert.errors import SwaaError, nearest

WORDS = ("odd", "even", "none", "auto", "every:N", "every:N+K")
_EVERY = re.compile(r"every:(\d+)(?:\+(\d+))?")


def check_interleave(word: object) -> None:
    """Refuse what is no interleave word."""
    if not isinstance(word, str):
        raise SwaaError(f"interleave must be one of {', '.join(WORDS)}, not {word!r}")
    if word not in WORDS[:4]:
        _every(word)


def stride(word: str) -> tuple[int, int] | None:
    """(step, first) of the layers that keep full attention; None when no layer does.

    `odd` means that the odd-numbered layers, counted from 0, KEEP full attention, as in the paper.
    """
    if word == "none":
        return None
    named = {"odd": (2, 1), "even": (2, 0)}
    return named[word] if word in named else _every(word)


def _every(word: str) -> tuple[int, int]:
    match = _EVERY.fullmatch(word)
    if match is None:
        raise SwaaError(f"unknown interleave {word!r}: {nearest(word, WORDS)}")
    step, first = int(match[1]), int(match[2] or 0)
    if step < 1:
        raise SwaaError(f"interleave {word}: the step must be 1 or more")
    if first >= step:
        raise SwaaError(f"interleave {word}: the first layer must be below the step, so 0 to {step - 1}")
    return step, first
