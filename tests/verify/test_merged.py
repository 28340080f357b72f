"""verify merges again: whatever is not what the adapters make of the source is found, whatever the manifest says."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import swaa_convert.verify.merged
from swaa_convert.errors import SwaaError
from swaa_convert.manifest import MANIFEST
from swaa_convert.verify.checks import Difference
from tests.merge.conftest import MOE_IS_BROKEN
from tests.support.adapters import EXPERTS, QV, make_adapter
from tests.support.command import run
from tests.support.fake_hub import FakeHub, serve
from tests.support.sources import make_source

QUERY = "model.layers.1.self_attn.q_proj.weight"
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": QV},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "untied": {"target_modules": QV, "modules_to_save": ["lm_head"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
}


def convert(folder: Path, *options: object, lora: str = "adapter") -> Path:
    result = run(folder / "source", "--lora", folder / lora, "--out", folder / "repo", "-q", *options)
    assert result.exit_code == 0, result.stderr
    return folder / "repo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A source in two shards and an adapter for it."""
    source = make_source(tmp_path / "source", "qwen3", shards=2, dtype=torch.bfloat16, tie_word_embeddings=True)
    make_adapter(source, tmp_path / "adapter")
    return tmp_path


def merge_check(folder: Path, *options: object) -> dict[str, Any]:
    result = run("verify", folder / "repo", "--source", folder / "source", "--json", *options)
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["ok"] else 1)
    return next(check for check in document["checks"] if check["name"] == "merge")


def sign_again(repo: Path, **changes: Any) -> None:
    """Write the hashes of the files as they are now into the manifest."""
    manifest = json.loads((repo / MANIFEST).read_text()) | changes
    for name in manifest["files"]:
        data = (repo / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (repo / MANIFEST).write_text(json.dumps(manifest))


def flip(repo: Path, name: str) -> None:
    """Flip the lowest bit of a number of this tensor."""
    for path in repo.glob("*.safetensors"):
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
        if name in tensors:
            tensors[name].view(torch.int16)[5, 7] ^= 1
            save_file(tensors, path, metadata={"format": "pt"})
    sign_again(repo)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_good_merge(kind: str, folder: Path) -> None:
    make_adapter(folder / "source", folder / kind, **ADAPTERS[kind])
    convert(folder, lora=kind)
    found = merge_check(folder, "--lora", folder / kind)
    assert (found["outcome"], "merged tensors equal to a merge done again" in found["said"]) == ("ok", True)


def test_fused_experts(tmp_path: Path) -> None:
    if MOE_IS_BROKEN:
        pytest.skip("this transformers cannot load MoE adapters with peft")
    source = make_source(tmp_path / "source", "qwen3_moe", shards=2, dtype=torch.bfloat16)
    make_adapter(source, tmp_path / "adapter", **EXPERTS["experts"])
    convert(tmp_path)
    assert merge_check(tmp_path, "--lora", tmp_path / "adapter")["outcome"] == "ok"


@pytest.mark.parametrize("options", [(), ("--max-shard-size", "100kB")])
def test_a_flipped_bit_is_found_though_the_hashes_fit(options: tuple[str, ...], folder: Path) -> None:
    repo = convert(folder, *options)
    assert merge_check(folder, "--lora", folder / "adapter")["outcome"] == "ok"
    flip(repo, QUERY)
    (difference,) = merge_check(folder, "--lora", folder / "adapter")["differences"]
    assert difference["thing"] == QUERY and difference["what"].startswith("differs in 1 of 8192 numbers, by up to ")


def test_a_tensor_that_is_only_said_to_be_merged(folder: Path) -> None:
    repo = convert(folder)
    merged = json.loads((repo / MANIFEST).read_text())["merged"]
    merged["tensors"].append("model.norm.weight")
    sign_again(repo, merged=merged)
    (difference,) = merge_check(folder, "--lora", folder / "adapter")["differences"]
    assert difference["thing"] == "model.norm.weight" and "don't change it" in difference["what"]


def test_a_local_adapter_is_found_beside_the_repo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or beside the source, or in the working directory, under the name that it had."""
    repo = convert(folder)
    assert merge_check(folder)["said"] == "8 merged tensors equal to a merge done again"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    moved = repo.rename(elsewhere / "repo")
    assert run("verify", moved, "--source", folder / "source").exit_code == 0
    (folder / "adapter").rename(elsewhere / "adapter")
    assert run("verify", moved, "--source", folder / "source").exit_code == 0
    (elsewhere / "adapter").rename(folder / "adapter")
    monkeypatch.chdir(folder)
    source = (folder / "source").rename(elsewhere / "source")
    assert run("verify", moved, "--source", source).exit_code == 0


@pytest.mark.parametrize("there", ["nothing", "another adapter", "no adapter"])
def test_a_local_adapter_is_asked_for(there: str, folder: Path) -> None:
    convert(folder)
    (folder / "adapter").rename(folder / "renamed")
    if there != "nothing":
        (folder / "adapter").mkdir()
    if there == "another adapter":
        make_adapter(folder / "source", folder / "adapter", seed=1)
    found = merge_check(folder)
    assert found["outcome"] == "failed"
    assert found["said"] == "8 merged tensors not compared: give the folder of the adapter adapter with --lora"


def test_what_cannot_be_compared_is_not_called_equal(folder: Path) -> None:
    repo = convert(folder)
    (folder / "adapter").rename(folder / "renamed")
    said = "8 merged tensors not compared: give the folder of the adapter adapter with --lora"
    result = run("verify", repo, "--source", folder / "source")
    assert (result.exit_code, result.stderr) == (1, f"Error: {repo}: {said}\n")
    assert "is what was converted" not in result.stdout
    assert f"\nmerge         failed   {said}\n" in result.stdout
    # Nobody has asked for it here.
    assert run("verify", repo).exit_code == 0


def test_what_was_found_before_a_merge_broke_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(convert(folder), QUERY)
    real = swaa_convert.verify.merged._differences

    def broken(*args: Any, **options: Any) -> Iterator[Difference]:
        yield next(real(*args, **options))
        raise SwaaError("adapter cannot be merged: mend it")

    monkeypatch.setattr(swaa_convert.verify.merged, "_differences", broken)
    found = merge_check(folder, "--lora", folder / "adapter")
    assert found["outcome"] == "differs" and [each["thing"] for each in found["differences"]] == [QUERY]
    assert found["said"] == "8 merged tensors not all compared: adapter cannot be merged: mend it"


def test_another_adapter_is_refused(folder: Path) -> None:
    repo = convert(folder)
    make_adapter(folder / "source", folder / "other", seed=1)
    result = run("verify", repo, "--source", folder / "source", "--lora", folder / "other")
    assert (result.exit_code, "is not an adapter that this repo was made with" in result.stderr) == (1, True)
    assert run("verify", repo, "--lora", folder / "adapter").exit_code == 2


def test_an_adapter_on_the_hub_and_one_that_is_gone(folder: Path) -> None:
    models = {"org/model": folder / "source", "org/lora": folder / "adapter"}
    verify = ("verify", folder / "repo", "--source", "org/model")
    with serve(FakeHub(models)) as hub:
        options = ("--lora", "org/lora", "--out", folder / "repo", "-q")
        assert hub.convert(folder / "home", "org/model", *options).returncode == 0
        shutil.rmtree(folder / "home")
        good = hub.convert(folder / "home", *verify)
        assert "8 merged tensors equal to a merge done again" in good.stdout, good.stderr
        shutil.rmtree(folder / "home")
        del hub.models["org/lora"]
        gone = hub.convert(folder / "home", *verify)
    assert gone.returncode == 1
    assert "8 merged tensors not compared: no folder and no Hub model org/lora" in gone.stderr
