"""`swaa-convert card`: the card from what the repo says, and measurements of this very repo only."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from swaa_convert.convert import convert_checkpoint
from swaa_convert.manifest import read_manifest
from swaa_convert.measured import BENCH_FILE, identity
from swaa_convert.recipe import Recipe
from swaa_convert.source import local_source
from tests.support.command import refused, run, tree
from tests.support.sources import make_source


@pytest.fixture(scope="module")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = make_source(tmp_path_factory.mktemp("card") / "q3")
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    out = source.parent / "q3-swaa"
    return convert_checkpoint(source, out, Recipe(window=16, keep_first=2, cot=True), check=False)


@pytest.fixture
def repo(converted_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted_once, tmp_path / "q3-swaa"))


@pytest.fixture
def bench(repo: Path) -> dict[str, Any]:
    """A document of `bench --json` as it would measure the repo."""
    manifest = read_manifest(local_source(repo))
    assert manifest is not None
    swaa = json.loads((repo / "config.json").read_text())["swaa_config"]
    spread = {"median": 0.5, "low": 0.4, "high": 0.6}
    figures = {"first": spread, "token": None, "kv_bytes": 4096}
    return {
        "format": 1,
        "command": "swaa-convert bench /home/ann/q3-swaa",
        "machine": {"device": "A | GPU", "cuda": "12.8", "torch": "2.13", "transformers": "5.24", "flash-attn-4": None}
        | {"swaa-convert": "0.1.0"},
        "model": {"layers": 4, "layers_on_disk": 4, "converted": identity(manifest)},
        "settings": {"random_weights": False, "repeats": 3, "new_tokens": 1, "batch": 1, "dtype": "float32"}
        | {"backend": "sdpa"},
        "variants": [
            {"name": "full attention", "swaa_config": None, "note": None},
            {"name": "own", "swaa_config": swaa},
        ],
        "results": [
            {"variant": "full attention", "length": 1024, "figures": {**figures, "first": {**spread, "median": 1.0}}},
            {"variant": "own", "length": 1024, "figures": figures},
        ],
    }


def written(folder: Path, document: Any) -> Path:
    path = folder.parent / "bench.json"
    path.write_text(json.dumps(document))
    return path


def test_the_card_of_a_conversion_is_what_the_repo_says(repo: Path) -> None:
    before = tree(repo)
    assert "the card is up to date already" in run("card", repo).output
    (repo / "README.md").unlink()
    assert "README.md, swaa_manifest.json written" in run("card", repo).output
    assert tree(repo) == before


def test_measurements_are_quoted_and_kept(repo: Path, bench: dict[str, Any]) -> None:
    result = run("card", repo, "--bench", written(repo, bench))
    assert result.exit_code == 0, result.output
    card = (repo / "README.md").read_text()
    assert "| 1,024 | 1.00 s ±10% / 500 ms ±20% | 2.00x | n/a / n/a | n/a | 4.00 KiB / 4.00 KiB |" in card
    assert "A  GPU, CUDA 12.8, torch 2.13" in card and "no speed" not in card
    assert "/home/ann" not in (repo / BENCH_FILE).read_text()
    assert run("verify", repo).exit_code == 0 and "up to date" in run("card", repo).output


STRANGE: list[tuple[dict[str, Any], str]] = [
    ({"model": {"layers": 4, "layers_on_disk": 4, "converted": "0" * 64}}, "on other weights or another recipe"),
    ({"model": {"layers": 4, "layers_on_disk": 4}}, "on other weights or another recipe"),
    ({"settings": {"random_weights": True}}, "--random-weights or --layers"),
    ({"variants": [{"name": "full attention", "note": "of another", "swaa_config": None}]}, "(--baseline)"),
    ({"variants": []}, "does not measure this repo's recipe"),
    ({"results": []}, "no length"),
    ({"results": [{"variant": "own", "length": 1, "figures": {}, "out_of_memory": True}]}, "no length"),
    ({"results": [{"variant": "own"}]}, "is no document of"),
    ({"machine": None}, "is no document of"),
    ({"format": 2}, "is no document of"),
]


@pytest.mark.parametrize(("change", "line"), STRANGE)
def test_measurements_of_anything_else_are_refused(
    change: dict[str, Any], line: str, repo: Path, bench: dict[str, Any]
) -> None:
    before = tree(repo)
    assert line in refused("card", repo, "--bench", written(repo, {**bench, **change}))
    assert tree(repo) == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}'])
def test_files_that_are_no_measurements(text: str, repo: Path) -> None:
    (repo.parent / "bench.json").write_text(text)
    assert "bench.json" in refused("card", repo, "--bench", repo.parent / "bench.json")


def test_a_card_that_was_edited_is_not_overwritten(repo: Path, bench: dict[str, Any]) -> None:
    (repo / "README.md").write_text("mine")
    assert "was changed by hand: move it away first" in refused("card", repo, "--bench", written(repo, bench))
    assert (repo / "README.md").read_text() == "mine"


def test_a_real_bench_belongs_to_its_repo(repo: Path) -> None:
    file = repo.parent / "bench.json"
    args = ("--lengths", "32", "--new-tokens", "2", "--repeats", "1", "--json", file)
    assert run("bench", repo, *args).exit_code == 0
    assert run("card", repo, "--bench", file).exit_code == 0
    assert "## Measured" in (repo / "README.md").read_text()
