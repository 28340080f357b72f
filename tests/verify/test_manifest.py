"""The manifest names every file with its hash, and strangers' manifests do no harm."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import swaa_convert.convert
from swaa_convert.convert import convert_checkpoint
from swaa_convert.manifest import MANIFEST
from swaa_convert.recipe import Recipe
from tests.support.command import refused, run, tree


def manifest_of(repo: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repo / MANIFEST).read_bytes())
    return found


@pytest.mark.parametrize("link", [False, True])
def test_every_file_with_its_hash(link: bool, source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", Recipe(cot=True), link=link, check=False)
    files = {name: data for name, data in tree(repo).items() if name != MANIFEST}
    assert manifest_of(repo)["files"] == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }


def test_says_what_it_was_made_of(repo: Path) -> None:
    manifest = manifest_of(repo)
    assert (manifest["source"], manifest["merged"]) == ({"name": "source"}, None)
    assert manifest["tool"]["version"] == manifest["code"]["version"]


def test_the_hubs_own_hash_is_taken(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, snapshot = tmp_path / "models--org--name/blobs", tmp_path / "models--org--name/snapshots" / ("a" * 40)
    source.rename(tmp_path / "files")
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in (tmp_path / "files").iterdir():
        path.rename(blobs / ("f" * 64 if path.suffix == ".safetensors" else path.name))
        (snapshot / path.name).symlink_to(blobs / ("f" * 64 if path.suffix == ".safetensors" else path.name))
    files = manifest_of(convert_checkpoint(snapshot, tmp_path / "out", Recipe(), check=False))["files"]
    assert files["model.safetensors"]["sha256"] == "f" * 64
    assert files["tokenizer.json"]["sha256"] == hashlib.sha256((blobs / "tokenizer.json").read_bytes()).hexdigest()


def test_a_failed_copy_is_said_while_others_are_hashed(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(swaa_convert.convert, "copy_file", fail)
    assert "No space left" in refused(source, "--out", tmp_path / "out", "-q")


def test_inspect_reads_the_codes_version_from_it(repo: Path) -> None:
    manifest = manifest_of(repo)
    (repo / MANIFEST).write_text(json.dumps({**manifest, "code": {"version": "9.8.7"}}))
    assert json.loads(run("inspect", repo, "--json").stdout)["repo"]["code_version"] == "9.8.7"


def entry(**changes: Any) -> dict[str, Any]:
    return {"size": 1, "sha256": "0" * 64, **changes}


DAMAGED: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "install a newer swaa-convert"),
    ({"version": None}, "is not what swaa-convert writes"),
    ({"files": []}, "is damaged"),
    ({"files": {"a": 3}}, "is damaged"),
    ({"files": {"a": entry(size=-1)}}, "no size and SHA-256 of 'a'"),
    ({"files": {"a": entry(size=True)}}, "no size and SHA-256 of 'a'"),
    ({"files": {"a": entry(sha256="x")}}, "no size and SHA-256 of 'a'"),
    ({"files": {"../../etc/passwd": entry()}}, "'../../etc/passwd' is no file of the repo"),
    ({"files": {"/etc/passwd": entry()}}, "'/etc/passwd' is no file of the repo"),
    ({"files": {"a\nb": entry()}}, "is no file of the repo"),
    ({"files": {"": entry()}}, "is no file of the repo"),
    ({"merged": {"adapters": []}}, "it has no 'tensors'"),
    ({"merged": {"adapters": [], "tensors": [3]}}, "3 is no text"),
    ({"source": {"id": 3}}, "3 is no text"),
    ({"tool": None}, "is damaged"),
]


@pytest.mark.parametrize(("changes", "said"), DAMAGED)
@pytest.mark.parametrize("command", ["verify", "inspect", "refresh-code"])
def test_a_damaged_manifest_is_refused(command: str, changes: dict[str, Any], said: str, repo: Path) -> None:
    (repo / MANIFEST).write_text(json.dumps({**manifest_of(repo), **changes}))
    before = tree(repo.parent)
    message = refused(command, repo)
    assert said in message and MANIFEST in message
    assert tree(repo.parent) == before
