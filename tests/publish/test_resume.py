"""Pushes that break: what was sent is not sent again, and the branch holds all or nothing."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.publish.test_push import pushed
from tests.support.fake_hub import TOKEN, FakeHub, Fault

BLOB, COMMITTED = "PUT /storage/", "POST /api/models/me/q3-swaa/commit/main"


def puts(hub: FakeHub) -> list[str]:
    return [line for line in hub.requests if line.startswith(BLOB)]


def test_killed_while_sending(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.faults = [Fault(BLOB, kind="hold", skip=1)]
    command = hub.command("push-to-hub", folder, "me/q3-swaa")
    process = subprocess.Popen(command, env=hub.environment(home, token=TOKEN), stderr=subprocess.DEVNULL)
    assert hub.held.wait(60)
    while len(hub.objects) < 1:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert set(pushed(hub).head) == {".gitattributes"}
    hub.faults, hub.requests = [], []
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0
    assert len(puts(hub)) == 1 and "config.json" in pushed(hub).head


def test_a_cut_connection_is_tried_again(hub: FakeHub, folder: Path, home: Path) -> None:
    starts = (BLOB, COMMITTED, "POST /me/q3-swaa.git", "GET /api/whoami", "POST /api/repos/create")
    hub.faults = [Fault(start, kind="cut", times=2) for start in starts]
    result = hub.push(home, folder, "me/q3-swaa")
    assert result.returncode == 0, result.stderr
    assert len(pushed(hub).commits) == 3


def test_a_commit_whose_answer_is_lost_is_made_once(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.faults = [Fault(COMMITTED, kind="late", times=1)]
    result = hub.push(home, folder, "me/q3-swaa")
    assert result.returncode == 0, result.stderr
    assert len(pushed(hub).commits) == 3


def test_a_lost_pull_request_is_not_opened_twice(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    pushed(hub).head["config.json"] = b"{}"
    pushed(hub).head.pop("swaa_manifest.json")
    pushed(hub).head.pop("config.json")
    hub.faults = [Fault(COMMITTED, kind="late", times=1)]
    result = hub.push(home, folder, "me/q3-swaa", "--create-pr", "-q")
    assert result.stderr.startswith("Error: me/q3-swaa: the connection to the Hub broke off")
    assert list(pushed(hub).refs) == ["main", "refs/pr/1"]


def test_broken_between_the_two_commits(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.faults = [Fault(COMMITTED, status=403, skip=1)]
    assert hub.push(home, folder, "me/q3-swaa").returncode == 1
    first, hub.faults, hub.requests = pushed(hub).refs["main"], [], []
    assert first in hub.push(home, folder, "me/q3-swaa").stdout
    assert puts(hub) == [] and first.encode() in pushed(hub).head["README.md"]


def test_cut_for_good(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.faults = [Fault(BLOB, kind="cut")]
    result = hub.push(home, folder, "me/q3-swaa", "-q")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    assert "the connection to the Hub broke off" in result.stderr and "run the command again" in result.stderr
    assert set(pushed(hub).head) == {".gitattributes"}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(status: int, hub: FakeHub, folder: Path, home: Path) -> None:
    starts = (BLOB, COMMITTED, "GET /api/models/me/q3-swaa", "POST /api/models/me/q3-swaa/preupload")
    hub.faults = [Fault(start, status=status, headers={"Retry-After": "1"}, times=2) for start in starts]
    result = hub.push(home, folder, "me/q3-swaa", "-q")
    assert (result.returncode, result.stderr) == (0, ""), result.stderr


def test_in_parts_over_a_slow_link(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.part_size, hub.pause = 100_000, 0.001
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0
    assert len([line for line in puts(hub) if "/part/" in line]) >= 8
    assert pushed(hub).head["config.json"] == (folder / "config.json").read_bytes()
