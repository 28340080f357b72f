"""The model card as it stands on the Hub: its loading code names the repo and a commit.

No commit can name itself, so a push makes two: the first holds everything, and the second changes the card, to name
the first, and the manifest, which lists the card.
"""

import re

from swaa_convert.card import loading_code

_LOADING = re.compile(r"```python\nfrom transformers import AutoModelForCausalLM.*?\n```", re.DOTALL)
_PIN = re.compile(r'^repo, commit = ".*", "([0-9a-f]{40})"', re.MULTILINE)


def card_for(card: bytes, repo_id: str, revision: str) -> bytes:
    """The card with loading code for a repo on the Hub at a commit, or on a branch until a commit is known."""
    text = card.decode("utf-8")
    code = f"```python\n{loading_code(repo_id, revision)}```"
    return _LOADING.sub(lambda match: code, text, count=1).encode()


def has_loading_code(card: bytes) -> bool:
    """Whether the card can be pinned at all."""
    return _LOADING.search(card.decode("utf-8", errors="replace")) is not None


def pin_of(card: bytes) -> str | None:
    """The commit that a card on the Hub names."""
    match = _PIN.search(card.decode("utf-8", errors="replace"))
    return match[1] if match else None


def snippet(repo_id: str, commit: str) -> str:
    """The line that is printed after a push."""
    return f'AutoModelForCausalLM.from_pretrained("{repo_id}", revision="{commit}", trust_remote_code=True)'
