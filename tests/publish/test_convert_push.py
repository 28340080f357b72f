"""`convert --push`: one command, and refused before the conversion begins."""

from pathlib import Path

from tests.publish.test_push import pushed
from tests.support.command import refused
from tests.support.fake_hub import READER, TOKEN, FakeHub, Fault
from tests.support.sources import make_source


def test_in_one_go_from_the_hub_and_back_to_it(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    hub.models["org/q3"] = make_source(tmp_path / "remote")
    args = ("org/q3", "--window", "16", "--out", tmp_path / "out", "--push", "me/q3-swaa", "--private", "--tag", "v1")
    result = hub.convert(home, *args, token=TOKEN)
    assert result.returncode == 0, result.stderr
    assert 'from_pretrained("me/q3-swaa", revision="' in result.stdout
    assert pushed(hub).private and pushed(hub).tags == {"v1": pushed(hub).refs["main"]}
    assert b"base_model: org/q3" in pushed(hub).head["README.md"]


def test_refused_before_anything_is_fetched(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    hub.models["org/q3"] = make_source(tmp_path / "remote")
    for token, line in ((None, "not logged in"), (READER, "can only read")):
        result = hub.convert(home, "org/q3", "--out", tmp_path / "out", "--push", "me/q3", token=token)
        assert (result.returncode, result.stdout) == (1, "") and line in result.stderr
    assert not hub.downloaded() and not (tmp_path / "out").exists()


def test_the_conversion_stands_if_the_push_fails(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source"), tmp_path / "out"
    hub.faults = [Fault("PUT /storage", status=403)]
    result = hub.convert(home, source, "--window", "16", "--out", out, "--push", "me/q3-swaa", "-q", token=TOKEN)
    assert result.returncode == 1 and "is converted: `swaa-convert push-to-hub` pushes it" in result.stderr
    hub.faults = []
    assert hub.push(home, out, "me/q3-swaa").returncode == 0


def test_dry_run(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    args = (source, "--out", tmp_path / "out", "--push", "me/q3-swaa", "--dry-run")
    result = hub.convert(home, *args, token=TOKEN)
    assert "The result would then be pushed to me/q3-swaa." in result.stdout and hub.sent() == []


def test_how_to_push_needs_where(tmp_path: Path) -> None:
    args = (tmp_path, "--out", tmp_path / "out", "--push-revision", "v2")
    assert "--push-revision says how to push: add --push REPO_ID" in refused(*args, code=2)
