"""`--cot`: make a source's chat templates ask for reasoning before the answer.

Under FA decode only the generated tokens look back at the whole prompt, so a model that repeats what it found
before it answers gets more chances to find it (chain of thought, arXiv 2512.10411).

An addition is a block of Jinja between two marker comments, put in front of the template in every form that
the source has. It prints nothing itself and leaves the rest of the file byte for byte, so `remove_cot` gives
the original back by cutting the block out.
"""

import json
import re
from collections.abc import Callable, Mapping
from string import Template
from typing import Any

from swaa_convert.errors import SwaaError
from swaa_convert.resources import TEMPLATES_DIR

# A prompt that fits in the window is computed as the source computes it. Text has one to five characters per
# token: with three, the reasoning is asked for from about the window on.
CHARACTERS_PER_TOKEN = 3
DEFAULT_WINDOW = 2048

_JSON_FILES = ("tokenizer_config.json", "chat_template.json")
# Inside JSON the block's last newline is written \n.
_ADDITION = re.compile(rb"\{#- swaa-convert --cot: .*?#- swaa-convert --cot: end #\}(?:\n|\\n)", re.DOTALL)
# A template as it stands in a JSON file: its key up to the opening quote, then the string.
_JSON_TEMPLATE = re.compile(r'("(?:chat_template|template)"\s*:\s*")((?:[^"\\]|\\.)*)(?=")', re.DOTALL)


def add_cot(files: Mapping[str, bytes], model_type: str, window: int | None = None) -> dict[str, bytes]:
    """Put the request for reasoning into every chat template among a source's files.

    A template of a model that always thinks already makes it reason and stays as it is.

    Parameters
    ----------
    files:
        The source's small files, name to content; those that hold no chat template are ignored.
    model_type:
        The source's, for the message when there is none.
    window:
        In tokens; prompts longer than about this are long. None: 2048.

    Returns
    -------
    The files that change, name to new content.
    """
    limit = long_prompt(window)
    found: list[str] = []

    def addition(template: str) -> str:
        found.append(template)
        return _addition_for(template, limit)

    original = remove_cot(files)
    changed = {name: _extend(name, content, addition) for name, content in original.items()}
    if not found:
        raise SwaaError(
            f"--cot: this {model_type} source has no chat template (a base model): "
            "drop --cot, or convert the instruction-tuned model"
        )
    return {name: content for name, content in changed.items() if content != files[name]}


def long_prompt(window: int | None) -> int:
    """Characters of conversation beyond which `--cot` asks for reasoning, for a window in tokens."""
    return CHARACTERS_PER_TOKEN * (window or DEFAULT_WINDOW)


def remove_cot(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files without what `add_cot` put into them, byte for byte as they were."""
    return {name: _ADDITION.sub(b"", content) for name, content in files.items()}


def _addition_for(template: str, limit: int) -> str:
    if "enable_thinking" in template:
        return _snippet("cot_thinking.jinja")
    if _always_thinks(template):
        return ""
    return Template(_snippet("cot_instruction.jinja")).substitute(characters=limit)


def _always_thinks(template: str) -> bool:
    """Whether the generation prompt, which stands at a template's end, opens the model's thoughts."""
    generation_prompt = template[template.rfind("add_generation_prompt") :]
    return "<think>" in generation_prompt and "</think>" not in generation_prompt


def _snippet(name: str) -> str:
    return (TEMPLATES_DIR / name).read_text(encoding="utf-8")


def _extend(name: str, content: bytes, addition: Callable[[str], str]) -> bytes:
    """Put `addition` of each template that a file holds in front of it; the file's own bytes stay."""
    if name in _JSON_FILES:
        return _extend_json(name, content, addition)
    if name == "chat_template.jinja" or re.fullmatch(r"additional_chat_templates/.*\.jinja", name):
        return addition(content.decode("utf-8")).encode("utf-8") + content
    return content


def _extend_json(name: str, content: bytes, addition: Callable[[str], str]) -> bytes:
    try:
        text = content.decode("utf-8")
        templates = _templates_of(json.loads(text))
    except ValueError as error:
        raise SwaaError(f"--cot: {name} is not valid JSON: {error}") from None

    def extend(match: re.Match[str]) -> str:
        template = json.loads(f'"{match[2]}"')
        if template not in templates:
            return match[0]
        return match[1] + json.dumps(addition(template))[1:-1] + match[2]

    return _JSON_TEMPLATE.sub(extend, text).encode("utf-8")


def _templates_of(document: Any) -> list[str]:
    """The templates in a tokenizer_config.json or chat_template.json: one, or several by name."""
    held = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(held, str):
        return [held]
    return [entry["template"] for entry in held or () if isinstance(entry.get("template"), str)]
