"""Full disks, read-only targets and limits: one line, and nothing is left behind."""

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from swaa_convert.copying import copy_file
from swaa_convert.errors import SwaaError
from swaa_convert.hub import HubSource
from swaa_convert.source import Download
from swaa_convert.space import require_space
from tests.support.command import refused, run, tree
from tests.support.fake_hub import FakeHub, serve

Usage = namedtuple("Usage", "total used free")


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, free))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte, less than the source has."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_room_is_asked_for_first(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 10**6)
    said = refused(source, "--out", tmp_path / "new/out", "-q")
    assert said.startswith(f"{tmp_path}: 5.0 MB are needed and 1.0 MB are free: free some space")
    assert said.endswith("or hard-link the weights with --link")
    assert os.listdir(tmp_path) == ["source"]


def test_a_download_to_the_same_disk_needs_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 60_000_000)
    downloads = [Download(tmp_path / "home/hub", 30_000_000), None, Download(tmp_path / "home/hub", 2_000_000)]
    require_space(tmp_path / "out", 30_000_000)
    require_space(tmp_path / "out", 20_000_000, downloads=downloads)
    with pytest.raises(SwaaError) as error:
        require_space(tmp_path / "out", 30_000_000, downloads=downloads)
    assert error.value.message == (
        f"{tmp_path}: 66.2 MB are needed (32.0 MB of them for the download) and 60.0 MB are free: "
        "free some space, choose another --out, or move the Hub's cache to another disk with HF_HOME"
    )


def test_a_cache_on_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setattr("swaa_convert.space._device", lambda folder: folder.name == "home")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**6 if path.name == "home" else 10**9))
    require_space(tmp_path / "out", 10**8, downloads=[Download(tmp_path / "home/hub", 0)])
    with pytest.raises(SwaaError) as error:
        require_space(tmp_path / "out", 10**8, downloads=[Download(tmp_path / "home/hub", 10**6)])
    assert error.value.message == (
        f"{tmp_path / 'home'}: 5.2 MB are needed for the download and 1.0 MB are free: "
        "free some space or move the Hub's cache to another disk with HF_HOME"
    )


def test_what_the_cache_has_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder, files = tmp_path / "models--org--name", {"here": 1, "moved": 10, "half": 100, "away": 1000}
    for name, size in (("snapshots/c0ffee/here", 1), ("blobs/b", 10), ("blobs/c.incomplete", 30)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    blobs = dict(zip(files, "abcd", strict=True))
    source = HubSource("org/name", "org/name", "c0ffee", files, asked=None, blobs=blobs)
    assert source.to_fetch(files) == Download(folder, 1070)


def test_a_small_disk_for_cache_and_copy(small_disk: Path, source: Path, tmp_path: Path) -> None:
    # Room for the copy, and none for the download beside it.
    subprocess.run(["mount", "-o", "remount,size=5300k", small_disk], check=True)
    with serve(FakeHub({"org/name": source})) as hub:
        both = hub.convert(small_disk / "home", "org/name", "--out", small_disk / "out", "-q")
        apart = hub.convert(tmp_path / "home", "org/name", "--out", small_disk / "out", "-q")
    assert "of them for the download) and" in both.stderr and both.stderr.count("\n") == 1
    assert (both.returncode, apart.returncode) == (1, 0), apart.stderr


def test_links_need_no_room(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 4_300_000)
    assert "are needed" in refused(source, "--out", tmp_path / "out", "-q")
    assert run(source, "--out", tmp_path / "out", "-q", "--link").exit_code == 0


def test_a_dry_run_needs_no_room(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 0)
    assert run(source, "--out", tmp_path / "out", "--dry-run").exit_code == 0


def test_a_small_disk(small_disk: Path, source: Path) -> None:
    assert "are needed and 524.3 kB are free" in refused(source, "--out", small_disk / "deep/out", "-q")
    assert os.listdir(small_disk) == []


def test_a_disk_that_fills_meanwhile(small_disk: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 10**9)
    said = refused(source, "--out", small_disk / "deep/out", "-q")
    assert said.startswith(f"{small_disk}/deep/.out.swaa-") and ".safetensors: No space" in said
    assert said.endswith("No space left on device: nothing was written: free some space or choose another --out")
    assert os.listdir(small_disk) == []


@pytest.mark.parametrize("place", ["/sys/swaa", "/proc/swaa", "/dev/null/swaa", "{source}/config.json/out"])
def test_where_nobody_can_write(place: str, source: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    said = refused(source, "--out", place.format(source=source), "-q")
    assert "nothing was written" in said or "inside the source" in said
    assert said.endswith(("choose another folder", "choose a folder outside it"))
    assert tree(tmp_path) == before


def test_a_read_only_disk(small_disk: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 10**9)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    said = refused(source, "--out", small_disk / "out", "-q")
    assert said.endswith("Read-only file system: nothing was written: choose a folder that can be written")


def test_a_limit_on_file_sizes(source: Path, tmp_path: Path) -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "import sys; from swaa_convert.cli import main; sys.argv = ['swaa-convert', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", script, str(source), "--out", str(tmp_path / "out"), "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "model.safetensors: File too large: nothing was written: lift the limit" in result.stderr
    assert os.listdir(tmp_path) == ["source"]


def test_an_unreadable_source(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    said = refused(source, "--out", tmp_path / "out", "-q")
    assert said.startswith(f"{source}/config.json: Permission denied: nothing was written: ask for access")


@pytest.mark.parametrize("command", ["verify", "refresh-code", "inspect"])
def test_other_commands_on_an_unreadable_folder(
    command: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    assert run(source, "--out", tmp_path / "out", "-q").exit_code == 0
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "Permission denied" in refused(command, tmp_path / "out")


def test_a_folder_that_may_not_be_listed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", fail)
    assert refused(source, "--out", tmp_path / "out", "-q").startswith(f"{source}: Permission denied: nothing was")


def test_a_disk_that_fails_while_it_is_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*tokenizer.json'"):
        copy_file(source / "tokenizer.json", tmp_path / "copy", lambda count: None)
