"""A source's files beside its weights: those that are none, and those that transformers could not read."""

import json
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.parser import Parser

from swaa_convert.errors import SwaaError
from swaa_convert.source import Source

# What transformers reads of a repo when it loads model and tokenizer, and reads as JSON objects.
_JSON = frozenset(
    "tokenizer.json tokenizer_config.json generation_config.json special_tokens_map.json added_tokens.json"
    " vocab.json chat_template.json".split()
)


class _Generation(Extension):
    """transformers' own tag, which marks what the assistant said."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_JINJA = jinja2.Environment(extensions=[_Generation, "jinja2.ext.loopcontrols"])


def check_names(source: Source, names: tuple[str, ...]) -> None:
    """Refuse names that could not stand in one line of a card, a recipe or a message."""
    if not source.name.isprintable():
        raise SwaaError(f"the source's name {source.name!r} holds a line break or the like: rename the folder")
    for name in names:
        if not name.isprintable():
            raise SwaaError(f"{source.name}: the file name {name!r} holds a line break or the like: rename the file")


def check_small_files(source: Source, names: tuple[str, ...]) -> None:
    """Refuse tokenizer files and chat templates that transformers could not read; nothing in them is run."""
    for name in names:
        if name in _JSON:
            templates = _templates(source, name, _object(source, name))
        elif name.endswith(".jinja"):
            templates = [_text(source, name)]
        else:
            continue
        for template in templates:
            _check_template(source, name, template)


def _object(source: Source, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_text(source, name))
    except (ValueError, RecursionError) as error:
        raise _broken(source, name, f"is not valid JSON ({error or 'nested too deeply'})") from error
    if not isinstance(value, dict):
        raise _broken(source, name, f"must hold a JSON object, not a {type(value).__name__}")
    return value


def _text(source: Source, name: str) -> str:
    try:
        return source.read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(source, name, "is not UTF-8 text") from error


def _templates(source: Source, name: str, values: dict[str, Any]) -> list[str]:
    """The chat templates in a JSON file: one, or several by name."""
    held = values.get("chat_template") if name in ("tokenizer_config.json", "chat_template.json") else None
    if held is None or isinstance(held, str):
        return [held] if held else []
    named = isinstance(held, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("template"), str) and isinstance(entry.get("name"), str)
        for entry in held
    )
    if not named:
        raise _broken(source, name, "has a chat_template that is neither text nor a list of named templates")
    return [entry["template"] for entry in held]


def _check_template(source: Source, name: str, template: str) -> None:
    try:
        _JINJA.parse(template)
    except (jinja2.TemplateError, RecursionError) as error:
        what = (str(error).splitlines() or ["nested too deeply"])[0]
        raise _broken(source, name, f"holds a chat template that is no Jinja ({what})") from error


def _broken(source: Source, name: str, what: str) -> SwaaError:
    return SwaaError(f"{source.name}: {name} {what}: mend it, or fetch it again")
