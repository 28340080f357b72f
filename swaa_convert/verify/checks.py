"""What a check found: nothing, differences, that it was not asked for, or that it could not be made."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Difference:
    """A file or a tensor, and what is wrong with it."""

    thing: str
    what: str


@dataclass(frozen=True)
class Check:
    """One check.

    Parameters
    ----------
    name:
        What was looked at.
    said:
        What was found, or why it was skipped, in words that also stand in one line with other checks'.
    differences:
        Everything that is not as it should be.
    skipped:
        The check was not made.
    failed:
        The check was asked for and could not be made, or not to its end.
    """

    name: str
    said: str
    differences: tuple[Difference, ...] = ()
    skipped: bool = False
    failed: bool = False

    @property
    def outcome(self) -> str:
        """ok, differs, failed or skipped."""
        return "differs" if self.differences else "failed" if self.failed else "skipped" if self.skipped else "ok"

    def as_json(self) -> dict[str, Any]:
        """The check for programs."""
        found = [{"thing": one.thing, "what": one.what} for one in self.differences]
        return {"name": self.name, "outcome": self.outcome, "said": self.said, "differences": found}
