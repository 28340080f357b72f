"""Every form in which a source holds its chat template: found, extended, and given back byte for byte."""

import json
from itertools import product

import pytest

from swaa_convert.chat_template import add_cot, remove_cot
from swaa_convert.errors import SwaaError
from tests.chat_template.templates import ALL, FORMS, OFF_BY_DEFAULT, QWEN25

EVERY = list(product(FORMS, [*ALL.values(), *OFF_BY_DEFAULT.values(), "", "\n  {% if x %}\r\n{% endif %}"]))


@pytest.mark.parametrize(("form", "template"), EVERY)
def test_removing_gives_the_original_back(form: str, template: str) -> None:
    files = FORMS[form](template)
    assert remove_cot(files | add_cot(files, "qwen3")) == files
    assert remove_cot(files) == files


@pytest.mark.parametrize("form", FORMS)
def test_only_files_with_a_template_change(form: str) -> None:
    files = FORMS[form](QWEN25)
    changed = add_cot(files | {"vocab.json": b"{}", "notes.jinja": b"{{ x }}"}, "qwen2")
    assert set(changed) == {name for name, content in files.items() if b"<tools>" in content}


@pytest.mark.parametrize("form", ["tokenizer_config", "odd json", "processor"])
def test_json_stays_json(form: str) -> None:
    [content] = add_cot(FORMS[form](QWEN25), "qwen2").values()
    assert json.loads(content)["chat_template"].endswith(QWEN25)


def test_every_named_template_is_extended() -> None:
    document = json.loads(add_cot(FORMS["list"](QWEN25), "qwen2")["tokenizer_config.json"])
    starts = [entry["template"].startswith("{#- swaa-convert --cot:") for entry in document["chat_template"]]
    assert starts == [True, True]
    assert document["other"] == {"template": "left alone"}


@pytest.mark.parametrize("form", FORMS)
def test_adding_twice_is_adding_once(form: str) -> None:
    files = FORMS[form](QWEN25)
    once = files | add_cot(files, "qwen2")
    assert add_cot(once, "qwen2") == {}
    assert remove_cot(once | add_cot(once, "qwen2", window=64)) == files


def test_a_model_that_always_thinks_stays_as_it_is() -> None:
    assert add_cot(FORMS["jinja"](ALL["thinking"]), "qwen3") == {}


NO_TEMPLATE = [{}, {"tokenizer_config.json": b'{"chat_template": null}'}, {"tokenizer_config.json": b"[]"}]


@pytest.mark.parametrize("files", NO_TEMPLATE)
def test_a_base_model_is_one_line(files: dict[str, bytes]) -> None:
    with pytest.raises(SwaaError, match="^--cot: this qwen3 source has no chat template .a base model"):
        add_cot(files, "qwen3")


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_broken_json_is_one_line(content: bytes) -> None:
    with pytest.raises(SwaaError, match="^--cot: chat_template.json is not valid JSON"):
        add_cot({"chat_template.json": content}, "qwen3")
