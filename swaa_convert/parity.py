"""`interleave: auto`: which parity of layers should keep full attention, as far as anyone has measured.

Best per model in the SWAA paper (arXiv 2512.10411): odd for Qwen3-4B, even for Qwen3-30B-A3B and
Llama-3.1-8B.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from swaa_convert.front_matter import read_front_matter
from swaa_convert.source import Source

_BEST = (
    (re.compile(r"qwen3-4b(?![0-9a-z])"), "Qwen3-4B", "odd"),
    (re.compile(r"qwen3-30b-a3b(?![0-9a-z])"), "Qwen3-30B-A3B", "even"),
    (re.compile(r"llama-3\.1-8b(?![0-9a-z])"), "Llama-3.1-8B", "even"),
)


@dataclass(frozen=True)
class Parity:
    """The parity and the sentence that says why."""

    interleave: str
    evidence: str


def best_parity(source: Source, config: dict[str, Any]) -> Parity:
    """The parity known to be best for the model that the source is or was made from."""
    for where, name in _names(source, config):
        for pattern, model, parity in _BEST:
            if pattern.search(name.lower()):
                return Parity(parity, f"best for {model} in the paper; recognised by {where} {name!r}")
    return Parity(
        "odd",
        "the paper has no best parity for this model; try even too, and keep the better one",
    )


def _names(source: Source, config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(where it stands, name), the surest first."""
    if source.repo_id:
        yield "the source's id", source.repo_id
    named = config.get("_name_or_path")
    if isinstance(named, str) and named:
        yield "_name_or_path in config.json", named
    for base in _base_models(source):
        yield "base_model in the source's card", base
    yield "the source's name", source.name


def _base_models(source: Source) -> list[str]:
    """What the source's card says it was made from; a card that cannot be read says nothing."""
    card = source.read("README.md") if "README.md" in source.files else b""
    base = read_front_matter(card).get("base_model")
    listed = base if isinstance(base, list) else [base]
    return [name for name in listed if isinstance(name, str)]
