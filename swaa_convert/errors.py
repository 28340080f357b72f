"""Errors that a user sees: one line that names the thing and the way out, and the exit status."""

import difflib
from collections.abc import Iterable

import click


class SwaaError(click.ClickException):
    """Something asked for cannot be done; exit status 1."""

    exit_code = 1


class SwaaUsageError(click.UsageError):
    """The command line itself is wrong; exit status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ctx=click.get_current_context(silent=True))


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or list all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
