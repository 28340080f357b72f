"""refresh-code replaces the code, keeps everything else, and leaves nothing half-done."""

import json
import os
from pathlib import Path

import pytest

import swaa_convert.refresh
from swaa_convert.families import families, shipped_files
from swaa_convert.refresh import refresh_code
from swaa_convert.resources import MODELING_DIR
from tests.support.command import refused, run, tree
from tests.support.fake_hub import FakeHub, serve
from tests.verify.test_verify import verified


@pytest.fixture
def stale(repo: Path) -> Path:
    """A repo with code of another version: a file less, one more, one that differs."""
    (repo / "swaa_mask.py").write_text("# older\n")
    (repo / "swaa_gone.py").write_text("# no longer shipped\n")
    (repo / "swaa_flash.py").unlink()
    return repo


def others(folder: Path) -> dict[str, bytes]:
    """Everything but code and manifest."""
    return {name: data for name, data in tree(folder).items() if "swaa_" not in name or name.endswith(".yaml")}


def test_every_shipped_file_has_a_name_by_which_code_is_known() -> None:
    shipped = {name for family in families() for name in shipped_files(family)}
    assert [name for name in shipped if not swaa_convert.embedded_code._CODE.fullmatch(name)] == []


def test_says_what_changed(stale: Path) -> None:
    result = run("refresh-code", stale)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1:4] == [
        "  added    swaa_flash.py",
        "  changed  swaa_mask.py",
        "  removed  swaa_gone.py",
    ]


def test_only_the_code_changes(stale: Path) -> None:
    (stale / "handler.py").write_text("# the user's own")
    (stale / "runs/deep").mkdir(parents=True)
    (stale / "runs/deep/log").write_text("the user's own")
    (stale / "link").symlink_to("runs/deep/log")
    kept, inode = others(stale), (stale / "model-00001-of-00002.safetensors").stat().st_ino
    refresh_code(stale)
    assert others(stale) == kept and (stale / "link").is_symlink()
    assert (stale / "model-00001-of-00002.safetensors").stat().st_ino == inode
    assert (stale / "swaa_mask.py").read_bytes() == (MODELING_DIR / "swaa_mask.py").read_bytes()


def test_the_manifest_follows(stale: Path) -> None:
    refresh_code(stale, check=False)
    assert verified(stale, "--source", stale.parent / "source")["files"]["outcome"] == "ok"


def test_a_file_that_was_changed_still_shows(stale: Path) -> None:
    (stale / "README.md").write_text("changed")
    refresh_code(stale, check=False)
    assert [one["thing"] for one in verified(stale)["files"]["differences"]] == ["README.md"]


def test_nothing_to_do(repo: Path) -> None:
    before = [(path.name, path.stat().st_ino) for path in repo.iterdir()]
    assert "carries the code of swaa-convert" in run("refresh-code", repo).stdout
    assert [(path.name, path.stat().st_ino) for path in repo.iterdir()] == before


def test_without_a_manifest_none_is_made(stale: Path) -> None:
    (stale / "swaa_manifest.json").unlink()
    assert "There is no swaa_manifest.json" in run("refresh-code", stale).stdout
    assert not (stale / "swaa_manifest.json").exists()


def test_a_copy_leaves_the_repo_alone(stale: Path, tmp_path: Path) -> None:
    before = tree(stale)
    refresh_code(stale, tmp_path / "copy", check=False)
    assert tree(stale) == before
    assert others(tmp_path / "copy") == others(stale)
    assert verified(tmp_path / "copy")["files"]["outcome"] == "ok"


def test_a_repo_on_the_hub(stale: Path, tmp_path: Path) -> None:
    (stale / ".gitattributes").write_text("x")
    with serve(FakeHub({"me/q3": stale})) as hub:
        result = hub.convert(tmp_path / "home", "refresh-code", "me/q3", "--out", tmp_path / "copy")
        without = hub.convert(tmp_path / "home", "refresh-code", "me/q3")
    assert result.returncode == 0, result.stderr
    assert verified(tmp_path / "copy")["files"]["outcome"] == "ok"
    assert (without.returncode, "say with --out" in without.stderr) == (2, True)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("step", ["write_file", "clone"])
def test_a_failure_leaves_the_old_code(exchange: bool, step: str, stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device", "shard")

    before = tree(stale.parent)
    monkeypatch.setattr(swaa_convert.refresh, step, fail)
    if not exchange:
        monkeypatch.setattr("swaa_convert.staging.exchange", lambda one, other: False)
    assert "nothing was changed" in refused("refresh-code", stale)
    assert tree(stale.parent) == before
    assert sorted(os.listdir(stale.parent)) == ["repo", "source"]


def test_code_that_does_not_fit_is_not_put_in(stale: Path) -> None:
    (stale / "model-00002-of-00002.safetensors").unlink()
    before = tree(stale.parent)
    assert "is missing" in refused("refresh-code", stale)
    assert tree(stale.parent) == before


def test_where_there_are_no_hard_links(stale: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(1, "Operation not permitted")

    kept = others(stale)
    monkeypatch.setattr(os, "link", fail)
    refresh_code(stale, check=False)
    assert others(stale) == kept


def test_refused(stale: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(tmp_path)
    assert "is not a converted repo" in refused("refresh-code", stale.parent / "source")
    assert "exists already" in refused("refresh-code", stale, "--out", stale.parent / "source")
    assert "drop --revision" in refused("refresh-code", stale, "--revision", "main", code=2)
    assert "lies inside the source" in refused("refresh-code", stale, "--out", stale / "new")
    monkeypatch.chdir(stale)
    assert "change to another folder first" in refused("refresh-code", ".")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "swaa_falcon"}, "model_type in config.json is 'swaa_falcon'"),
        ({"auto_map": {"AutoModelForCausalLM": "me/q3--modeling_swaa_qwen3.SwaaQwen3ForCausalLM"}}, "auto_map"),
        ({"auto_map": {}}, "auto_map"),
        ({"swaa_config": {"version": 9, "sliding_window_size": 4}}, "config.json"),
    ],
)
def test_a_config_that_the_code_does_not_know(change: dict[str, object], said: str, stale: Path) -> None:
    config = json.loads((stale / "config.json").read_text())
    (stale / "config.json").write_text(json.dumps({**config, **change}))
    before = tree(stale)
    assert said in refused("refresh-code", stale)
    assert tree(stale) == before
