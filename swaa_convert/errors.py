"""Errors that a user sees: one line that names the thing and the way out, and the exit status."""

import difflib
from collections.abc import Iterable

import click

# Characters of a message; in a longer one, what is in the middle is a name or a value.
_LONGEST = 1000


class SwaaError(click.ClickException):
    """Something asked for cannot be done; exit status 1."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class SwaaUsageError(click.UsageError):
    """The command line itself is wrong; exit status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message), ctx=click.get_current_context(silent=True))


def one_line(text: str) -> str:
    """`text` as it can stand in one line of a terminal: names from strangers may hold line breaks or be huge."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    if len(shown) <= _LONGEST:
        return shown
    return f"{shown[: _LONGEST // 2]} … {shown[-_LONGEST // 2 :]}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or list all of them."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
