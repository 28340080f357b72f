"""The YAML that a model card begins with: a card from strangers says something or nothing, and never fails."""

import re
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LONGEST = 64 * 1024


def read_front_matter(card: bytes) -> dict[Any, Any]:
    """What the card says of itself; empty where it cannot be read."""
    match = _FRONT_MATTER.match(card.decode("utf-8", errors="replace"))
    if match is None or len(match[1]) > _LONGEST:
        return {}
    try:
        values = yaml.safe_load(match[1])
    except Exception:
        # For tags that don't fit their values, PyYAML raises whatever it stumbled over.
        return {}
    return values if isinstance(values, dict) else {}
