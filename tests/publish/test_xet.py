"""Xet storage, which the client uses wherever hf_xet is installed: the same pushes through it."""

from pathlib import Path
from typing import Any

import pytest

from tests.publish.test_push import pushed
from tests.support.command import tree
from tests.support.fake_hub import TOKEN, FakeHub, Fault

pytest.importorskip("hf_xet")
XORBS, SHARDS = "POST /cas/v1/xorbs/", "POST /cas/v1/shards"


def test_everything_is_there(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.xet = True
    result = hub.push(home, folder, "me/q3-swaa")
    assert result.returncode == 0, result.stderr
    there = {name: data for name, data in pushed(hub).head.items() if name.endswith(".safetensors")}
    assert there and all(data == (folder / name).read_bytes() for name, data in there.items())
    assert not [line for line in hub.requests if line.startswith("PUT /storage")]
    assert "Nothing has changed" in hub.push(home, folder, "me/q3-swaa").stdout


def test_the_token_is_nowhere(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.xet = True
    hub.push(home, folder, "me/q3-swaa")
    kept = {path: data for path, data in tree(home).items() if "xet" in str(path)}
    assert kept and not [path for path, data in kept.items() if TOKEN.encode() in data or b"cas-token" in data]


FAULTS = [
    (XORBS, 403, "the Hub does not allow it"),
    (SHARDS, 400, "the Hub answered 400"),
    ("GET /api/models/me/q3-swaa/xet-write-token", 401, "the Hub refused the token"),
    ("GET /api/models/me/q3-swaa/xet-write-token", 403, "the Hub does not allow it"),
]


@pytest.mark.parametrize(("start", "status", "line"), FAULTS)
def test_what_the_hub_answers(start: str, status: int, line: str, hub: FakeHub, folder: Path, home: Path) -> None:
    hub.xet, hub.faults = True, [Fault(start, status=status)]
    result = hub.push(home, folder, "me/q3-swaa", "-q")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert line in result.stderr and set(pushed(hub).head) == {".gitattributes"}
    hub.faults = []
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0


@pytest.mark.parametrize("fault", [{"status": 503}, {"kind": "cut"}])
def test_what_passes_is_tried_again(fault: dict[str, Any], hub: FakeHub, folder: Path, home: Path) -> None:
    hub.xet = True
    hub.faults = [Fault(start, times=1, **fault) for start in (XORBS, SHARDS)]
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0
    assert "config.json" in pushed(hub).head


def test_broken_between_sending_and_the_commit(hub: FakeHub, folder: Path, home: Path) -> None:
    """Chunks that were sent are known to the client, which does not send them again."""
    hub.xet, hub.faults = True, [Fault("POST /api/models/me/q3-swaa/commit", status=403)]
    assert hub.push(home, folder, "me/q3-swaa").returncode == 1
    hub.faults, hub.requests = [], []
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0
    assert not [line for line in hub.requests if line.startswith(XORBS)]


def test_a_hub_without_it(hub: FakeHub, folder: Path, home: Path) -> None:
    """Older clients ask what there is; newer ones take it for granted."""
    hub.xet = False
    result = hub.push(home, folder, "me/q3-swaa", "-q")
    if result.returncode:
        assert result.stderr == "Error: me/q3-swaa: this Hub has no xet storage: set HF_HUB_DISABLE_XET=1\n"
        hub.xet = None
        result = hub.push(home, folder, "me/q3-swaa", "-q")
    assert result.returncode == 0 and "config.json" in pushed(hub).head
