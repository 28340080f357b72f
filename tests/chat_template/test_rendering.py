"""What extended templates say, through a real tokenizer's `apply_chat_template`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import PreTrainedTokenizerFast

from swaa_convert.chat_template import add_cot
from tests.chat_template.templates import ALL, FORMS, LLAMA31, OFF_BY_DEFAULT, QWEN3, QWEN25, TRAINING
from tests.support.tokenizers import write_tokenizer

ASK = (
    "\n\nReason step by step before you answer: find the passages above that matter, "
    "repeat what they say, and only then give the answer."
)
# A window of ten tokens makes thirty characters the limit.
WINDOW, LONG = 10, "x" * 31
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
Messages = list[dict[str, Any]]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def tokenizer_of(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Any]:
    """A function that loads a tiny tokenizer with the given files."""

    def load(files: Mapping[str, bytes]) -> Any:
        write_tokenizer(tmp_path, chat_template=False)
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return PreTrainedTokenizerFast.from_pretrained(tmp_path)

    return load


@pytest.fixture
def render(tokenizer_of: Callable[[Mapping[str, bytes]], Any]) -> Callable[..., tuple[str, str]]:
    """A function that renders messages with the source's template and with the extended one."""

    def both(template: str, messages: Messages, **options: Any) -> tuple[str, str]:
        tokenizer = tokenizer_of({})
        options = {"tokenize": False, "add_generation_prompt": True, "bos_token": "<|endoftext|>"} | options
        before = tokenizer.apply_chat_template(messages, chat_template=template, **options)
        extended = add_cot({"chat_template.jinja": template.encode()}, "any", WINDOW)
        after = extended.get("chat_template.jinja", template.encode()).decode()
        return before, tokenizer.apply_chat_template(messages, chat_template=after, **options)

    return both


SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}
SHORT: list[Messages] = [
    [user("hi")],
    [SYSTEM, user("hi")],
    [user("hi"), assistant("a"), user("b")],
    [user("y" * 30)],
]


@pytest.mark.parametrize("template", [*ALL.values(), "\n  {% if true %}\n x{% endif %}"])
@pytest.mark.parametrize("messages", SHORT)
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False}, {"tools": [TOOL]}])
def test_short_prompts_are_rendered_as_before(render: Any, template: str, messages: Messages, options: Any) -> None:
    before, after = render(template, messages, **options)
    assert after == before


# Where the request belongs is written as ASK; without it, it is the source's own conversation.
LONG_CHATS: list[Messages] = [
    [user(LONG + ASK)],
    [SYSTEM, user(LONG + ASK)],
    [SYSTEM | {"content": LONG}, user("b" + ASK)],
    [user("a"), assistant(LONG), user("b" + ASK), assistant("c"), user("d" + ASK)],
    [user(LONG + ASK), assistant("a")],
    [user("a" * 16), assistant("b"), user("c" * 14 + ASK)],
]


@pytest.mark.parametrize("template", [QWEN25, LLAMA31, TRAINING])
@pytest.mark.parametrize("expected", LONG_CHATS)
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False}, {"tools": [TOOL]}])
def test_long_prompts_ask_for_reasoning(render: Any, template: str, expected: Messages, options: Any) -> None:
    plain = [message | {"content": message["content"].replace(ASK, "")} for message in expected]
    assert render(template, plain, **options)[1] == render(template, expected, **options)[0]


def test_tool_calls_and_answers_stay_as_they_are(render: Any) -> None:
    chat = [user("a"), CALL, {"role": "tool", "content": LONG}]
    before, after = render(QWEN25, chat, tools=[TOOL])
    assert after == before
    before, after = render(QWEN25, [*chat, assistant("b"), user("c" + ASK)], tools=[TOOL])
    assert after.count(ASK) == 2


def test_a_later_turn_leaves_the_earlier_ones_alone(render: Any) -> None:
    """So that the KV cache of a conversation stays valid when it grows long."""
    chat = [user("a" * 20), assistant("b"), user("c" * 20), assistant("d"), user("e")]
    turns = [render(QWEN25, chat[:end], add_generation_prompt=False)[1] for end in range(1, 6)]
    assert all(later.startswith(earlier) for earlier, later in zip(turns, turns[1:], strict=False))


def test_contents_in_parts(render: Any) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": LONG}]
    asked = [*parts, {"type": "text", "text": ASK}]
    assert render(TRAINING, [user(parts)])[1] == render(TRAINING, [user(asked)])[0]


def test_nothing_loops_over_contents() -> None:
    """vLLM takes such a loop as a sign that the template wants contents in parts, and would send them so."""
    [template] = add_cot({"chat_template.jinja": b""}, "any").values()
    loops = jinja2.Environment().parse(template.decode()).find_all(jinja2.nodes.For)
    assert [loop.iter.name for loop in loops] == ["messages"]


def test_messages_are_not_changed(render: Any) -> None:
    messages = [user(LONG), user([{"type": "text", "text": LONG}])]
    render(TRAINING, messages)
    assert messages == [user(LONG), user([{"type": "text", "text": LONG}])]


@pytest.mark.parametrize("length", [5, 100])
def test_training_masks_cover_the_answers(tokenizer_of: Any, length: int) -> None:
    tokenizer = tokenizer_of(add_cot({"chat_template.jinja": TRAINING.encode()}, "any", WINDOW))
    chat = [user("x" * length), assistant("one"), user("y"), assistant("two")]
    found = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    marked = [t for t, in_answer in zip(found["input_ids"], found["assistant_masks"], strict=True) if in_answer]
    assert tokenizer.decode(marked) == "one<|im_end|>two<|im_end|>"


@pytest.mark.parametrize("template", [QWEN3, *OFF_BY_DEFAULT.values()])
def test_a_hybrid_thinks_unless_told_not_to(render: Any, template: str) -> None:
    for content in ("hi", LONG):
        thinking = render(template, [user(content)], enable_thinking=True)
        assert thinking[0] == thinking[1] == render(template, [user(content)])[1]
        quiet = render(template, [user(content)], enable_thinking=False)
        assert quiet[0] == quiet[1] != thinking[1]


@pytest.mark.parametrize("form", ["tokenizer_config", "list", "odd json", "jinja"])
def test_every_form_loads(tokenizer_of: Any, form: str) -> None:
    files = FORMS[form](QWEN25)
    tokenizer = tokenizer_of(files | add_cot(files, "qwen2", WINDOW))
    assert ASK in tokenizer.apply_chat_template([user(LONG)], tokenize=False)
