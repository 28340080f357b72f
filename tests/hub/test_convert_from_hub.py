"""Converting a Hub id with the real client against a local server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.fake_hub import COMMIT, FakeHub, serve
from tests.support.sources import make_source

UNNEEDED = [
    "evil.py",
    "pytorch_model.bin",
    "model.gguf",
    "original/consolidated.00.pth",
    ".gitattributes",
    "onnx/m.onnx",
]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    source = make_source(tmp_path / "remote", "qwen3", shards=2)
    for name in UNNEEDED:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("unneeded")
    (source / "README.md").write_text("---\nbase_model: meta-llama/Llama-3.1-8B\n---\n# Theirs\n")
    with serve(FakeHub({"org/name": source})) as served:
        yield served


def test_only_what_is_needed_at_one_commit(hub: FakeHub, tmp_path: Path) -> None:
    result = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert hub.downloaded().isdisjoint(UNNEEDED)
    assert yaml.safe_load((tmp_path / "out/swaa_recipe.yaml").read_text())["source"] == {
        "id": "org/name",
        "revision": COMMIT,
    }
    shards = [path.name for path in tmp_path.glob("out/*.safetensors")]
    assert [(tmp_path / "out" / s).read_bytes() == (tmp_path / "remote" / s).read_bytes() for s in shards] == [True] * 2
    assert "even: best for Llama-3.1-8B in the paper; recognised by base_model" in result.stdout


def test_again_from_the_cache_when_offline(hub: FakeHub, tmp_path: Path) -> None:
    first = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "one", "--quiet")
    asked = len(hub.requests)
    again = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "two", "--quiet", offline=True)
    assert (first.returncode, again.returncode, again.stderr) == (0, 0, "")
    assert len(hub.requests) == asked
    assert (tmp_path / "one/swaa_recipe.yaml").read_text() == (tmp_path / "two/swaa_recipe.yaml").read_text()


def test_says_that_it_is_offline(hub: FakeHub, tmp_path: Path) -> None:
    hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "--dry-run")
    args = ("org/name", "--revision", COMMIT, "--out", tmp_path / "out", "--dry-run")
    result = hub.convert(tmp_path / "home", *args, offline=True)
    assert result.stderr.startswith("Offline: org/name as far as the Hub's cache has it (")
    assert "model-00001-of-00002.safetensors, which is not there (2 of 2 shards missing)" in result.stderr


def test_dry_run_downloads_no_weights(hub: FakeHub, tmp_path: Path) -> None:
    result = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"org/name at {COMMIT}" in result.stdout
    assert not [name for name in hub.downloaded() if name.endswith(".safetensors")]
    assert not (tmp_path / "out").exists()


def test_unfit_source_is_refused_before_its_weights_are_fetched(hub: FakeHub, tmp_path: Path) -> None:
    config = tmp_path / "remote/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["XlmForCausalLM"]}))
    result = hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "--quiet")
    assert result.stderr.startswith("Error: org/name is a XlmForCausalLM; supported are")
    assert hub.downloaded() == {"config.json"}


INFO = "/api/models/org/name"
FAILURES = [
    ("org/none", [], {}, "no folder and no Hub model org/none"),
    ("org/name", ["--revision", "v9"], {}, "org/name has no revision 'v9'"),
    ("org/name", [], {INFO: (403, {"X-Error-Code": "GatedRepo"})}, "org/name is gated: accept its terms"),
    (
        "org/name",
        [],
        {INFO: (401, {"X-Error-Message": "Invalid credentials in Authorization header"})},
        "hf auth login",
    ),
    ("org/name", [], {INFO: (500, {})}, "the Hub answered 500: try again later"),
    ("org/name", [], {"/org/name/resolve": (403, {})}, "org/name"),
]


@pytest.mark.parametrize(("name", "args", "answers", "said"), FAILURES)
def test_failures_are_one_line(
    name: str, args: list[str], answers: dict[str, tuple[int, dict[str, str]]], said: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.answers = answers
    result = hub.convert(tmp_path / "home", name, "--out", tmp_path / "out", "--quiet", *args)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_unreachable(tmp_path: Path) -> None:
    result = FakeHub({}, url="http://127.0.0.1:9").convert(tmp_path, "org/name", "--out", tmp_path / "out", "-q")
    assert (
        result.stderr
        == "Error: org/name is no local folder, the Hub cannot be reached and the Hub's cache has no copy: "
        "check the name and the connection\n"
    )
