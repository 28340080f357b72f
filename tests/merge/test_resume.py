"""--resume reuses what a killed run has finished, after checking it; without it everything is made anew."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import swaa_convert.convert
from swaa_convert.resume import FILE, finished_bytes
from swaa_convert.shards.layout import Shard
from tests.merge.changes import setting
from tests.merge.conftest import Make
from tests.support.adapters import copied
from tests.support.command import refused, run, tree

SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
# Kills itself once the first two shards are written and recorded.
KILLED = """
import os, signal, sys
import swaa_convert.convert as c
from swaa_convert.shards import pool
from swaa_convert.resume import Journal
pool._WORKERS = 1
done, add = [], Journal.add
def counted(self, name, finished):
    add(self, name, finished)
    done.append(name)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = counted
from swaa_convert.cli import main
sys.argv = ["swaa-convert", *sys.argv[1:]]
main()
"""


@pytest.fixture
def args(source_of: Make, adapter_of: Make, tmp_path: Path) -> list[str]:
    """The command whose run is killed."""
    return [str(source_of()), "--lora", str(adapter_of(source_of())), "--out", str(tmp_path / "out"), "-q"]


@pytest.fixture
def stage(args: list[str], tmp_path: Path) -> Path:
    """What a killed run left."""
    killed = subprocess.run([sys.executable, "-c", KILLED, *args], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (found,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that the next run writes."""
    names: list[str] = []
    write = swaa_convert.convert.write_shard

    def recorded(shard: Shard, *arguments: Any, **options: Any) -> str | None:
        names.append(shard.name)
        return write(shard, *arguments, **options)

    monkeypatch.setattr(swaa_convert.convert, "write_shard", recorded)
    return names


def assert_whole(args: list[str], tmp_path: Path) -> None:
    """The output is what an undisturbed run makes, and nothing else is left."""
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert run(*args[:-2], tmp_path / "other", "-q").exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "other")


def test_finished_shards_are_reused(args: list[str], stage: Path, written: list[str], tmp_path: Path) -> None:
    kept = {path.name: path.stat().st_ino for path in stage.glob("*.safetensors")}
    assert run(*args, "--resume").exit_code == 0
    names = list(written)
    assert len(names) == 1 and names[0] in SHARDS
    reused = [name for name in SHARDS if name not in names]
    assert all((tmp_path / "out" / name).stat().st_ino == kept[name] for name in reused)
    assert_whole(args, tmp_path)


def test_without_resume_everything_is_new(args: list[str], stage: Path, written: list[str], tmp_path: Path) -> None:
    assert run(*args).exit_code == 0
    assert sorted(written) == SHARDS
    assert_whole(args, tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "link"])
def test_damaged_shards_are_not_reused(
    damage: str, args: list[str], stage: Path, written: list[str], source_of: Make, tmp_path: Path
) -> None:
    name = json.loads((stage / FILE).read_text().splitlines()[1])["name"]
    data = (stage / name).read_bytes()
    (stage / name).unlink()
    if damage == "link":
        (stage / name).symlink_to(source_of() / name)
    elif damage != "remove":
        (stage / name).write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if damage == "flip" else b""))
    assert run(*args, "--resume").exit_code == 0
    assert name in written and len(written) == 2
    assert_whole(args, tmp_path)


def test_another_adapter_reuses_nothing(
    args: list[str], stage: Path, written: list[str], source_of: Make, adapter_of: Make, tmp_path: Path
) -> None:
    args[2] = str(adapter_of(source_of(), "other", seed=1))
    assert run(*args, "--resume").exit_code == 0
    assert sorted(written) == SHARDS
    assert_whole(args, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]\n", '{"key": 3}\n{"name": "../x", "size": 1, "sha256": ""}\n'])
def test_a_broken_record_reuses_nothing(
    text: str, args: list[str], stage: Path, written: list[str], tmp_path: Path
) -> None:
    (stage / FILE).write_text(text)
    assert run(*args, "--resume").exit_code == 0
    assert sorted(written) == SHARDS
    assert_whole(args, tmp_path)


def test_another_recipe_reuses_the_weights(args: list[str], stage: Path, written: list[str], tmp_path: Path) -> None:
    assert run(*args, "--resume", "--window", "5").exit_code == 0
    assert len(written) == 1
    assert json.loads((tmp_path / "out/config.json").read_text())["swaa_config"]["sliding_window_size"] == 5


def test_nothing_to_resume(args: list[str], written: list[str], tmp_path: Path) -> None:
    assert run(*args, "--resume").exit_code == 0
    assert_whole(args, tmp_path)


def test_what_breaks_off_under_resume_is_kept(
    args: list[str], written: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = swaa_convert.convert._check
    monkeypatch.setattr(swaa_convert.convert, "_check", lambda stage: os.stat(tmp_path / "nothing"))
    assert run(*args, "--resume").exit_code == 1
    monkeypatch.setattr(swaa_convert.convert, "_check", check)
    written.clear()
    assert run(*args, "--resume").exit_code == 0
    assert written == []
    assert_whole(args, tmp_path)


@pytest.mark.parametrize("changed", [{"lora_alpha": 99}, {"use_rslora": True}], ids=str)
def test_other_settings_of_the_same_weights_reuse_nothing(
    changed: dict[str, Any],
    args: list[str],
    stage: Path,
    written: list[str],
    source_of: Make,
    adapter_of: Make,
    tmp_path: Path,
) -> None:
    same = adapter_of(source_of())
    other = copied(same, tmp_path.parent / f"{tmp_path.name}-lora" / same.name)
    setting(**changed)(other)
    args[2] = str(other)
    assert run(*args, "--resume").exit_code == 0
    assert sorted(written) == SHARDS
    assert_whole(args, tmp_path)


def test_links_of_a_killed_run_do_not_stay(written: list[str], source_of: Make, tmp_path: Path) -> None:
    """Nor do they count as room that is taken already."""
    source = copied(source_of(), tmp_path.parent / f"{tmp_path.name}-source")
    args = [str(source), "--out", str(tmp_path / "out"), "-q"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *args, "--link"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert finished_bytes(tmp_path / "out") == 0
    assert run(*args, "--resume").exit_code == 0
    assert sorted(written) == SHARDS
    assert not any((tmp_path / "out" / name).samefile(source / name) for name in SHARDS)


def test_what_was_made_while_the_source_changed_is_not_reused(
    args: list[str], written: list[str], source_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = copied(source_of(), tmp_path.parent / f"{tmp_path.name}-source")
    args[0] = str(source)
    take = swaa_convert.convert.take_stamps

    def taken(*arguments: Any) -> Any:
        stamps = take(*arguments)
        for name in SHARDS:
            os.utime(source / name, (1, 1))
        return stamps

    monkeypatch.setattr(swaa_convert.convert, "take_stamps", taken)
    assert "was changed while it was converted" in refused(*args, "--resume")
    monkeypatch.setattr(swaa_convert.convert, "take_stamps", take)
    written.clear()
    assert run(*args, "--resume").exit_code == 0
    assert sorted(written) == SHARDS
    assert_whole(args, tmp_path)
