"""The code blocks of a page of Markdown.

Fenced blocks name their language; indented ones hold commands. A comment before a block says how it can be tested:

    <!-- test: gpu -->          checked, not run: it needs a GPU
    <!-- test: several gpus --> the same for more than one
    <!-- test: slow -->         checked, not run: it takes minutes, or installs something
    <!-- test: needs NAME -->   run where the Python package NAME is installed, checked elsewhere
    <!-- test: not ours -->     other people's code: Python must parse
    <!-- test: world NAME … --> not about a block: what the page takes to be there (see world.py)
"""

import re
from dataclasses import dataclass
from pathlib import Path

_MARK = re.compile(r"<!-- test: (.+) -->")
_FENCE = re.compile(r"```(\w*)")
MARKS = ("gpu", "several gpus", "slow", "not ours")


@dataclass(frozen=True)
class Block:
    """A block of code: where it starts (line, from 1), its language ("sh" if indented), and its marks."""

    line: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def needs(self) -> str | None:
        """The package it needs beyond what the tests have."""
        return next((mark.removeprefix("needs ") for mark in self.marks if mark.startswith("needs ")), None)


def blocks(page: Path) -> list[Block]:
    """All code blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    position = 0
    while position < len(lines):
        start, marks = position, _marks(lines, position)
        fence = _FENCE.fullmatch(lines[position])
        if fence:
            position = lines.index("```", position + 1)
            found.append(Block(start + 1, fence[1], "\n".join(lines[start + 1 : position]), marks))
        elif _indented(lines[position]) and (not start or not _MARK.sub("", lines[start - 1]).strip()):
            while position + 1 < len(lines) and _indented(lines[position + 1]):
                position += 1
            found.append(Block(start + 1, "sh", "\n".join(x[4:] for x in lines[start : position + 1]), marks))
        position += 1
    return found


def world(page: Path) -> list[str]:
    """What the page takes to be there."""
    said = (mark for mark in _MARK.findall(page.read_text(encoding="utf-8")) if mark.startswith("world "))
    return [name for mark in said for name in mark.split()[1:]]


def commands(block: Block) -> list[str]:
    """The commands of a block, each in one line."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def _indented(line: str) -> bool:
    return line.startswith("    ")


def _marks(lines: list[str], position: int) -> tuple[str, ...]:
    """The marks in the comments right above."""
    marks: list[str] = []
    for line in reversed(lines[:position]):
        match = _MARK.fullmatch(line)
        if match is None and line.strip():
            break
        marks += [match[1]] if match else []
    return tuple(mark for mark in marks if not mark.startswith("world "))
