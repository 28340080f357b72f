"""What a push was asked for."""

import re
from dataclasses import dataclass

from swaa_convert.errors import SwaaUsageError

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PULL_REQUEST = re.compile(r"refs/pr/\d+")


@dataclass(frozen=True)
class Wanted:
    """One push.

    Parameters
    ----------
    repo_id:
        The repo on the Hub; without a namespace it is the user's own.
    private:
        A repo that is created is private, and one that exists must be.
    branch:
        Where to push: a branch, which is created if need be, or refs/pr/N.
    create_pr:
        Propose the change as a pull request instead of pushing it.
    message:
        The commit's first line; None: one that names the tool.
    tag:
        A tag for the commit.
    """

    repo_id: str
    private: bool = False
    branch: str | None = None
    create_pr: bool = False
    message: str | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        _check_id(self.repo_id)
        if self.branch is not None and (
            not _is_ref(self.branch)
            or _COMMIT.fullmatch(self.branch)
            or (self.branch.startswith("refs/") and not _PULL_REQUEST.fullmatch(self.branch))
        ):
            raise SwaaUsageError(f"{self.branch!r} is no branch to push to: give one such as main or v2")
        if self.tag is not None and not _is_ref(self.tag):
            raise SwaaUsageError(f"--tag {self.tag!r} is no tag: give one such as v1.0")
        if self.tag is not None and self.create_pr:
            raise SwaaUsageError("--tag names a commit that is pushed, and --create-pr pushes none: drop one of them")
        if self.message is not None and not self.message.strip():
            raise SwaaUsageError("--message is empty: give a line, or drop it")

    @property
    def on(self) -> str:
        """The branch that is pushed to, or against which a pull request is opened."""
        return self.branch or MAIN


def _check_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise SwaaUsageError(
            f"{repo_id!r} is no repo on the Hub: give an id such as me/q3-swaa (letters, digits, - _ .)"
        ) from None


def _is_ref(name: str) -> bool:
    """Whether git takes the name for a branch or a tag."""
    parts = name.split("/")
    wrong = re.search(r"[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|@\{", name)
    return not wrong and all(part and not part.startswith(("-", ".")) and not part.endswith(".lock") for part in parts)
