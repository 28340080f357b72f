"""What can be said of a block without running it, and how each command is run."""

import ast
import json
import re
import shlex
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from packaging.requirements import Requirement

from swaa_convert.cli import cli
from swaa_convert.recipe_file import parse_recipe
from tests.docs.blocks import MARKS, Block, commands

ROOT = Path(__file__).resolve().parents[2]
# Programs that blocks may use beside swaa-convert; the system's own are run as they are.
PROGRAMS = ("python", "torchrun", "hf", "lm_eval", "cat", "diff", "sha256sum", "sed", "mkdir", "pytest", "vllm", "curl")
_SHELL = re.compile(r"[|&;<>$`()]")


class UnknownBlock(Exception):
    """A block that the tests don't know how to run or to check."""


def steps(block: Block) -> list[dict[str, Any]]:
    """How a block is run; empty if it is only checked. Checks all of it."""
    _check_marks(block)
    _check(block)
    runs = not set(block.marks) & set(MARKS) and (block.needs is None or find_spec(block.needs) is not None)
    if not runs or block.language not in ("python", "sh"):
        return []
    if block.language == "python":
        return [{"line": block.line, "kind": "python", "text": block.text}]
    return [{"line": block.line, **_step(command)} for command in commands(block)]


def _check(block: Block) -> None:
    if block.language == "python":
        ast.parse(block.text)
    elif block.language == "sh":
        for command in commands(block):
            check_command(command, ours="not ours" not in block.marks)
    elif block.language == "yaml":
        if "not ours" not in block.marks:
            parse_recipe(block.text.encode(), f"line {block.line}")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language != "text":
        raise UnknownBlock(f"line {block.line}: a block in {block.language or 'no language'}")


def _check_marks(block: Block) -> None:
    for mark in block.marks:
        if mark not in MARKS and not re.fullmatch(r"needs \w+", mark):
            raise UnknownBlock(f"line {block.line}: no such mark: {mark}")


def _step(command: str) -> dict[str, Any]:
    """swaa-convert by itself runs in the worker's own process, which has loaded everything already."""
    if _program(command) == "swaa-convert" and not _SHELL.search(command) and command.startswith("swaa-convert"):
        return {"kind": "swaa", "args": shlex.split(command)[1:], "text": command}
    return {"kind": "shell", "text": command}


def check_command(command: str, *, ours: bool = True) -> None:
    """That a command could be run: its program is known, our options exist, and so do our scripts and extras."""
    words = shlex.split(command)
    program = _program(command)
    if not ours:
        return
    if program == "swaa-convert":
        _check_options(words[words.index("swaa-convert") + 1 :])
    elif program == "pip":
        _check_install(words)
    elif program in ("python", "torchrun"):
        _check_script(words)
    elif program not in PROGRAMS:
        raise UnknownBlock(f"no way is known to run {program!r}")


def _program(command: str) -> str:
    return next(word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word))


def _check_options(words: list[str]) -> None:
    """click parses them; a mistake ends in a UsageError."""
    stop = next((position for position, word in enumerate(words) if re.match(r"[|<>&;]", word)), len(words))
    words = words[:stop]
    group: click.Command = cli
    context = cli.make_context("swaa-convert", list(words), resilient_parsing=False) if words else None
    while isinstance(group, click.Group) and context is not None:
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest:
            return
        name, group, rest = group.resolve_command(context, rest)  # type: ignore[assignment]
        context = group.make_context(name, list(rest), parent=context)


def _check_install(words: list[str]) -> None:
    extras = metadata("swaa-convert").get_all("Provides-Extra") or []
    for word in words[2:]:
        local = re.fullmatch(r"\.(?:\[(\w+)\])?", word)
        if local is None:
            Requirement(word)
        elif local[1] is not None and local[1] not in extras:
            raise UnknownBlock(f"no extra {local[1]!r} in pyproject.toml")


def _check_script(words: list[str]) -> None:
    """The script is there and knows the options that follow it."""
    script = next((position for position, word in enumerate(words) if word.endswith(".py")), None)
    if script is None:
        return
    text = (ROOT / words[script]).read_text(encoding="utf-8")
    # What stands behind `--` is for another program.
    given = words[script + 1 :]
    given = given[: given.index("--")] if "--" in given else given
    for option in (word.split("=")[0] for word in given if word.startswith("--")):
        if f'"{option}"' not in text:
            raise UnknownBlock(f"{words[script]} has no {option}")
