"""Sources that are no checkpoint, and files that are none, lead elsewhere, or cannot be read."""

import os
import socket
from pathlib import Path

import pytest

from tests.malformed.damage import SINGLE, Cases, Change, config, link, only, refuses, replaced, weights_as, write
from tests.support.command import refused, run
from tests.support.sources import make_source

ITSELF = "put the file itself there, or remove it"
COMMAND = "save_pretrained('source-safetensors')"


def listening(path: Path) -> None:
    """A socket, whose name the system keeps short."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(here)


def outside(name: str) -> Change:
    def change(source: Path) -> None:
        (source / name).rename(source.parent / "elsewhere")
        (source / name).symlink_to(source.parent / "elsewhere")

    return change


FOLDERS: Cases = {
    "empty": (only(), "has no config.json, so it is no transformers checkpoint"),
    "adapter": (
        only("adapter_config.json", data=b'{"base_model_name_or_path": "a/b"}'),
        "give a/b as SOURCE and the adapter as --lora",
    ),
    "adapter with an odd base": (
        only("adapter_config.json", data=b'{"base_model_name_or_path": 3}'),
        "give its base model as SOURCE",
    ),
    "adapter that is no object": (only("adapter_config.json", data=b"3"), "adapter_config.json must hold"),
    "adapter and model": (
        write("adapter_config.json", {}),
        "move the adapter to a folder of its own, and merge it with --lora",
    ),
    "diffusers": (only("model_index.json"), "is a diffusers pipeline"),
    "original weights": (only("params.json"), "take the repo of the same model in -hf format"),
    "GGUF": (only("model-q4.gguf"), "give the safetensors repo that they were made from"),
    "GGUF with a config": (weights_as("model-q4.gguf"), "take the safetensors repo that it was made from"),
    "no weights": (weights_as("notes.txt"), "has no weights: neither model.safetensors nor"),
    "bin": (weights_as("pytorch_model.bin"), COMMAND),
    "sharded bin": (weights_as("pytorch_model-00001-of-00002.bin"), COMMAND),
    "pth": (weights_as("consolidated.00.pth"), "take the repo of the same model in safetensors"),
}
STRANGE: Cases = {
    "config is a pipe": (replaced("config.json", os.mkfifo), "config.json is a pipe", ITSELF),
    "config is a socket": (replaced("config.json", listening), "config.json is a socket", ITSELF),
    "config is a device": (link("config.json", "/dev/zero"), "config.json is a device", ITSELF),
    "config is a folder": (replaced("config.json", Path.mkdir), "config.json is a folder", ITSELF),
    "config links to itself": (link("config.json", "config.json"), "config.json is a link to itself", ITSELF),
    "config links to nothing": (link("config.json", "nowhere"), "config.json is a link to nothing", ITSELF),
    "config links out": (outside("config.json"), "config.json is a link out of the source folder: replace it"),
    "weights are a pipe": (replaced(SINGLE, os.mkfifo), f"{SINGLE} is a pipe", ITSELF),
    "weights are a device": (link(SINGLE, "/dev/zero"), f"{SINGLE} is a device", ITSELF),
    "weights link to nothing": (link(SINGLE, "../blobs/gone"), f"{SINGLE} is a link to nothing", ITSELF),
    "weights link out": (outside(SINGLE), f"{SINGLE} is a link out of the source folder: replace it by the file"),
    "tokenizer is a pipe": (replaced("tokenizer.json", os.mkfifo), "tokenizer.json is a pipe", ITSELF),
    "tokenizer links out": (outside("tokenizer.json"), "tokenizer.json is a link out of the source folder"),
    "licence links to nothing": (link("LICENSE", "gone"), "LICENSE is a link to nothing", ITSELF),
    "index is a pipe": (replaced(f"{SINGLE}.index.json", os.mkfifo), "index.json is a pipe", ITSELF),
}
NAMES: Cases = {
    "a line break": (write("notes\nmore.txt", b""), "'notes\\nmore.txt'", "rename the file"),
    "an escape": (write("notes\x1b[31m.txt", b""), "notes\\x1b[31m.txt", "rename the file"),
    "no text": (lambda source: Path(os.fsdecode(bytes(source) + b"/a\xff.txt")).touch(), "rename the file"),
}
TEMPLATE = "holds a chat template that is no Jinja ("
READ: Cases = {
    "tokenizer.json broken": (write("tokenizer.json", b"{"), "tokenizer.json is not valid JSON"),
    "tokenizer.json empty": (write("tokenizer.json", b""), "tokenizer.json is not valid JSON"),
    "tokenizer.json a list": (write("tokenizer.json", b"[]"), "tokenizer.json must hold a JSON object, not a list"),
    "tokenizer.json deep": (write("tokenizer.json", b"[" * 100_000), "tokenizer.json is not valid JSON"),
    "tokenizer.json no UTF-8": (write("tokenizer.json", b'"\xff"'), "tokenizer.json is not UTF-8 text"),
    "tokenizer_config broken": (write("tokenizer_config.json", b"{"), "tokenizer_config.json is not valid JSON"),
    "tokenizer_config a list": (write("tokenizer_config.json", b"[]"), "tokenizer_config.json must hold a JSON object"),
    "generation_config broken": (write("generation_config.json", b"}"), "generation_config.json is not valid JSON"),
    "special tokens a list": (write("special_tokens_map.json", b"[]"), "special_tokens_map.json must hold"),
    "template of numbers": (write("tokenizer_config.json", {"chat_template": 3}), "neither text nor a list of named"),
    "templates without names": (write("chat_template.json", {"chat_template": [{"template": ""}]}), "neither text nor"),
    "template open": (write("chat_template.jinja", b"{% if a %}"), f"chat_template.jinja {TEMPLATE}"),
    "template cut": (write("chat_template.jinja", b"{{ messages"), f"chat_template.jinja {TEMPLATE}"),
    "template no UTF-8": (write("chat_template.jinja", b"\xff"), "chat_template.jinja is not UTF-8 text"),
    "template in JSON": (write("tokenizer_config.json", {"chat_template": "{% x %}"}), TEMPLATE),
    "another template": (write("additional_chat_templates/rag.jinja", b"{{"), f"rag.jinja {TEMPLATE}"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_no_checkpoint(case: str, source: Path) -> None:
    refuses(source, FOLDERS[case][0], "source", *FOLDERS[case][1:])


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_file(case: str, source: Path) -> None:
    refuses(source, STRANGE[case][0], "source: ", *STRANGE[case][1:])


@pytest.mark.parametrize("case", NAMES)
def test_names(case: str, source: Path) -> None:
    refuses(source, NAMES[case][0], "holds a line break or the like", *NAMES[case][1:])


@pytest.mark.parametrize("case", READ)
def test_tokenizer_and_templates(case: str, source: Path) -> None:
    refuses(source, READ[case][0], "source: ", *READ[case][1:], "fetch it again")


def test_a_folder_with_a_line_break(tmp_path: Path) -> None:
    source = make_source(tmp_path / "a\nb")
    assert "'a\\nb' holds a line break or the like" in refused(source, "--out", tmp_path / "out", "-q")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "config.json"])
def test_a_file_is_no_source(name: str, source: Path, tmp_path: Path) -> None:
    (source / name).touch()
    assert "is a file: give the folder" in refused(source / name, "--out", tmp_path / "out", "-q")


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a file: give the folder" in refused(tmp_path / "pipe", "--out", tmp_path / "out", "-q")


@pytest.mark.parametrize("name", ["loop", "a" * 300])
def test_paths_that_lead_nowhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refused(tmp_path / name, "--out", tmp_path / "out", "-q")


@pytest.mark.parametrize("out", ["loop", "loop/out", "a" * 300])
def test_targets_that_lead_nowhere(out: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refused(source, "--out", tmp_path / out, "-q")
    assert sorted(os.listdir(tmp_path)) == ["loop", "source"]


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}{% break %}{% endfor %}", "{% generation %}x{% endgeneration %}"],
)
def test_tags_of_transformers_own_are_no_harm(template: str, source: Path, tmp_path: Path) -> None:
    (source / "chat_template.jinja").write_text(template)
    assert run(source, "--out", tmp_path / "out", "-q").exit_code == 0


@pytest.mark.parametrize(
    "front",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\ntags: *b",
        "tags: !!python/object/apply:os.system ['touch {mark}']",
        "license: !!timestamp x",
        "license: !!int ''",
        "date: 2024-13-45",
        "tags: " + "[" * 10_000,
        "? [a]\n: b",
        "license: [",
    ],
)
def test_a_card_that_cannot_be_read_says_nothing(front: str, source: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (source / "README.md").write_text(f"---\n{front.replace('{mark}', str(mark))}\n---\n# Theirs\n")
    assert run(source, "--out", tmp_path / "out", "-q", "--interleave", "auto").exit_code == 0
    assert not mark.exists()


def test_base_model_without_template(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", chat_template=False)
    refuses(source, config(), "has no chat template", args=("--cot",))
