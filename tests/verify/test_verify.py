"""verify finds every difference, and runs no code but its own."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swaa_convert.convert import convert_checkpoint
from swaa_convert.manifest import MANIFEST, Merged, dump_manifest, make_manifest, read_manifest
from swaa_convert.recipe import Recipe
from swaa_convert.source import local_source
from tests.support.command import run, tree
from tests.support.fake_hub import FakeHub, serve
from tests.support.sources import FAMILIES, make_source

SHARD = "model-00001-of-00002.safetensors"
LAST = "model-00002-of-00002.safetensors"


def verified(repo: Path, *args: object) -> dict[str, Any]:
    """What verify finds, as it tells programs; its exit status must agree."""
    result = run("verify", repo, "--json", *map(str, args))
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1)
    return {check["name"]: check for check in found["checks"]}


def differences(repo: Path, check: str, *args: object) -> dict[str, str]:
    return {one["thing"]: one["what"] for one in verified(repo, *args)[check]["differences"]}


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a file."""
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def sign_again(repo: Path, merged: Merged | None = None) -> None:
    """A manifest of the files as they are now."""
    manifest = read_manifest(local_source(repo))
    assert manifest is not None
    shas = {name: hashlib.sha256(data).hexdigest() for name, data in tree(repo).items()}
    del shas[MANIFEST]
    (repo / MANIFEST).write_bytes(dump_manifest(make_manifest(repo, shas, manifest.source, merged)))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_is_well_in_one_line(family: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family, shards=2, dtype=torch.bfloat16)
    repo = convert_checkpoint(source, tmp_path / "repo", Recipe(window=8), check=False)
    before = tree(tmp_path)
    result = run("verify", repo, "--source", source)
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, "", 1), result.output
    assert result.stdout.startswith("repo is what was converted: ")
    assert "tensors equal to source's; forward pass finite" in result.stdout
    assert tree(tmp_path) == before


def test_without_a_source_it_says_so(repo: Path) -> None:
    assert run("verify", repo).stdout.endswith("tensors not compared with a source's (--source)\n")


def longer(repo: Path) -> None:
    (repo / "config.json").write_bytes((repo / "config.json").read_bytes() + b"\n")


def flip_a_bit(repo: Path) -> None:
    data = bytearray((repo / SHARD).read_bytes())
    data[-5] ^= 1
    (repo / SHARD).write_bytes(data)


CHANGES: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda repo: (repo / "README.md").unlink(), "README.md", "is missing"),
    (
        lambda repo: (repo / "config.json").write_bytes((repo / "config.json").read_bytes() + b"\n"),
        "config.json",
        "byte",
    ),
    (flip_a_bit, SHARD, "has other content (SHA-256)"),
    (lambda repo: (repo / "extra.py").write_text("x"), "extra.py", "is code that no conversion writes"),
    (lambda repo: make_source(repo / "deep", "llama"), "deep/model.safetensors", f"is not in {MANIFEST}"),
    (lambda repo: shutil.move(repo / "config.json", repo / "deep.json"), "config.json", "is missing"),
    (lambda repo: (repo / SHARD).rename(repo / LAST), SHARD, "is missing"),
]


@pytest.mark.parametrize(("change", "thing", "said"), CHANGES)
def test_a_file_that_differs(change: Callable[[Path], object], thing: str, said: str, repo: Path) -> None:
    change(repo)
    assert said in differences(repo, "files")[thing]
    assert verified(repo)["forward pass"]["outcome"] == "skipped"


def test_a_link_out_of_the_folder(repo: Path) -> None:
    size = (repo / SHARD).stat().st_size
    (repo / SHARD).rename(repo.parent / "elsewhere")
    (repo / SHARD).symlink_to(repo.parent / "elsewhere")
    assert size and differences(repo, "files")[SHARD] == "is a link out of the folder"


def test_what_the_hub_adds_is_no_difference(repo: Path) -> None:
    (repo / ".gitattributes").write_text("x")
    (repo / ".cache/huggingface").mkdir(parents=True)
    (repo / ".cache/huggingface/x.metadata").write_text("x")
    assert differences(repo, "files") == {}


def test_code_that_this_version_does_not_ship(repo: Path) -> None:
    (repo / "swaa_mask.py").write_text("raise SystemExit('run!')")
    (repo / "swaa_older.py").write_text("")
    (repo / "swaa_cache.py").unlink()
    assert list(differences(repo, "code")) == ["swaa_cache.py", "swaa_mask.py", "swaa_older.py"]


def test_code_is_not_run_even_if_the_manifest_agrees(repo: Path) -> None:
    mark = repo.parent / "mark"
    (repo / "swaa_mask.py").write_text(f"open({str(mark)!r}, 'w')")
    sign_again(repo)
    assert differences(repo, "files") == {} and list(differences(repo, "code")) == ["swaa_mask.py"]
    assert not mark.exists()


def test_another_auto_map_is_not_followed(repo: Path) -> None:
    config = json.loads((repo / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "evil/repo--modeling.Evil"
    (repo / "config.json").write_text(json.dumps(config))
    sign_again(repo)
    assert "auto_map" in differences(repo, "code")["config.json"]


def test_the_table_lists_every_difference(repo: Path) -> None:
    (repo / "README.md").unlink()
    (repo / "ex\ntra").write_text("")
    result = run("verify", repo)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"Error: {repo} is not what was converted (2 differences): convert the source again"
    )
    assert "\n    README.md  is missing\n    ex\\ntra" in result.stdout


EMBED = "model.embed_tokens.weight"


def negate(tensors: dict[str, torch.Tensor]) -> None:
    tensors[EMBED][3, 5] *= -1


TENSORS: list[tuple[Callable[[torch.Tensor], torch.Tensor], str]] = [
    (lambda tensor: -tensor, "has other values than the source's"),
    (lambda tensor: tensor.half(), "is F16, the source's F32"),
    (lambda tensor: tensor.T.contiguous(), "has shape [64, 264], the source's [264, 64]"),
]


@pytest.mark.parametrize(("change", "said"), TENSORS)
def test_a_tensor_that_differs(change: Callable[[torch.Tensor], torch.Tensor], said: str, repo: Path) -> None:
    rewrite(repo / SHARD, lambda tensors: tensors.update({EMBED: change(tensors[EMBED])}))
    sign_again(repo)
    assert differences(repo, "tensors", "--source", repo.parent / "source") == {EMBED: said}


def test_tensors_that_only_one_has(pair: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "tied", "qwen3", tie_word_embeddings=True)
    assert differences(pair / "repo", "tensors", "--source", source) == {"lm_head.weight": "is not in the source"}


def test_nan_is_equal_to_itself(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen3")
    rewrite(source / "model.safetensors", lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    repo = convert_checkpoint(source, tmp_path / "repo", Recipe(), check=False)
    found = verified(repo, "--source", source)
    assert (found["tensors"]["outcome"], found["forward pass"]["outcome"]) == ("ok", "differs")
    assert found["forward pass"]["differences"][0]["what"] == "gives logits that are not finite"


def test_other_shards_are_no_difference(pair: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "one", "qwen3")
    assert verified(pair / "repo", "--source", source)["tensors"]["said"] == "47 tensors equal to one's"


def test_merged_tensors_are_not_compared_with_the_source(repo: Path) -> None:
    rewrite(repo / SHARD, negate)
    sign_again(repo, Merged(({"name": "adapter"},), (EMBED,)))
    found = verified(repo, "--source", repo.parent / "source")
    assert found["tensors"]["said"] == "46 tensors equal to source's"
    said = f"1 merged tensors not compared: {MANIFEST} has no commit and no hash of the adapter adapter: convert the"
    assert (found["merge"]["outcome"], said in found["merge"]["said"]) == ("failed", True)


def test_too_large_for_memory(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swaa_convert.verify.forward.free_memory", lambda: 10**6)
    found = verified(repo)["forward pass"]
    assert (found["outcome"], "1.0 MB are free" in found["said"]) == ("skipped", True)


def test_what_is_no_converted_repo(repo: Path, tmp_path: Path) -> None:
    assert "is not a converted repo" in run("verify", repo.parent / "source").stderr
    assert "no folder" in run("verify", tmp_path / "nowhere").stderr
    (repo / MANIFEST).unlink()
    assert f"has no {MANIFEST}" in run("verify", repo).stderr


def test_a_source_on_the_hub_at_the_recorded_commit(tmp_path: Path) -> None:
    source = make_source(tmp_path / "remote", "qwen3", shards=2)
    with serve(FakeHub({"org/name": source})) as hub:
        assert hub.convert(tmp_path / "home", "org/name", "--out", tmp_path / "out", "-q").returncode == 0
        result = hub.convert(tmp_path / "home", "verify", tmp_path / "out", "--source", "org/name")
    assert "47 tensors equal to org/name's" in result.stdout, result.stderr
