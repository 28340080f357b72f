"""Pushes that are refused: one line, and nothing sent."""

import json
from pathlib import Path

import pytest

from tests.support.command import refused, tree
from tests.support.fake_hub import READER, TOKEN, FakeHub, Fault, Repo

CREATE, COMMIT = "POST /api/repos/create", "POST /api/models/me/q3-swaa/commit"


def said(hub: FakeHub, home: Path, folder: Path, *args: str, token: str | None = TOKEN) -> str:
    repo_id = args[0] if args else "me/q3-swaa"
    result = hub.push(home, folder, repo_id, "-q", *args[1:], token=token)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert TOKEN not in result.stderr
    return result.stderr


ACCOUNT = [
    (None, "me/q3-swaa", "not logged in to the Hub: run `hf auth login`, or set HF_TOKEN"),
    ("hf_wrong", "me/q3-swaa", "the Hub refused the token: run `hf auth login`"),
    (READER, "me/q3-swaa", "the Hub token of me can only read"),
    (TOKEN, "their/q3-swaa", "me is no member of their: push to me/q3-swaa, or propose it with --create-pr"),
]


@pytest.mark.parametrize(("token", "repo_id", "line"), ACCOUNT)
def test_the_account(token: str | None, repo_id: str, line: str, hub: FakeHub, folder: Path, home: Path) -> None:
    assert line in said(hub, home, folder, repo_id, token=token)
    assert hub.sent() == []


def test_a_fine_grained_token(hub: FakeHub, folder: Path, home: Path) -> None:
    scoped = [{"entity": {"type": "user", "name": "me"}, "permissions": ["repo.content.read"]}]
    token = hub.accounts[TOKEN]["auth"]["accessToken"] = {"role": "fineGrained", "fineGrained": {"scoped": scoped}}
    assert "the Hub token has no write access to me/q3-swaa" in said(hub, home, folder)
    token["fineGrained"]["scoped"][0]["permissions"] = ["repo.write"]
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0


def test_a_reader_of_an_organization(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.accounts[TOKEN]["orgs"] = [{"name": "lab", "roleInOrg": "read"}]
    assert "me may only read in lab" in said(hub, home, folder, "lab/q3-swaa")


FAULTS = [
    (CREATE, 401, "the Hub refused the token"),
    (CREATE, 403, "the Hub does not allow it"),
    (CREATE, 409, "me/q3-swaa exists already, and the token cannot see it: choose another id"),
    (COMMIT, 403, "the Hub does not allow it"),
    (COMMIT, 404, "there is no such repo, or the token cannot see it"),
    (COMMIT, 409, "it changed on the Hub meanwhile"),
    (COMMIT, 413, "the Hub finds the commit too large"),
    (COMMIT, 429, "the Hub asks for fewer requests: wait a few minutes and run the command again"),
    (COMMIT, 500, "the Hub keeps answering 500: wait a while"),
    ("PUT /storage", 403, "the Hub does not allow it"),
    ("PUT /storage", 503, "the Hub keeps answering 503"),
    ("POST /me/q3-swaa.git/info/lfs", 403, "the Hub does not allow it"),
    ("GET /api/whoami", 500, "the Hub keeps answering 500"),
]


@pytest.mark.parametrize(("start", "status", "line"), FAULTS)
def test_what_the_hub_answers(start: str, status: int, line: str, hub: FakeHub, folder: Path, home: Path) -> None:
    hub.faults = [Fault(start, status=status, headers={"Retry-After": "0"})]
    assert line in said(hub, home, folder)
    repo = hub.models.get("me/q3-swaa")
    assert not isinstance(repo, Repo) or set(repo.head) == {".gitattributes"}


def test_offline_and_unreachable(hub: FakeHub, folder: Path, home: Path) -> None:
    offline = hub.convert(home, "push-to-hub", folder, "me/q3-swaa", offline=True, token=TOKEN)
    assert offline.stderr == "Error: offline mode is on (HF_HUB_OFFLINE): unset it to push\n"
    away = FakeHub({}, url="http://127.0.0.1:9").push(home, folder, "me/q3-swaa")
    assert "the connection to the Hub broke off" in away.stderr and away.stderr.count("\n") == 1


def test_private_does_not_hide_a_public_repo(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = Repo.new()
    assert "me/q3-swaa exists and is public" in said(hub, home, folder, "me/q3-swaa", "--private")
    assert hub.sent() == []


def test_a_tag_that_exists(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = repo = Repo.new()
    repo.tags["v1"] = repo.refs["main"]
    assert "has a tag v1 already" in said(hub, home, folder, "me/q3-swaa", "--tag", "v1")


def test_pull_requests_need_a_repo_and_a_branch(hub: FakeHub, folder: Path, home: Path) -> None:
    assert "nothing to open a pull request in" in said(hub, home, folder, "me/none", "--create-pr")
    hub.models["me/q3-swaa"] = Repo.new()
    assert "has no branch v2" in said(hub, home, folder, "me/q3-swaa", "--create-pr", "--revision", "v2")
    assert "has no refs/pr/7" in said(hub, home, folder, "me/q3-swaa", "--revision", "refs/pr/7")


def test_a_card_that_the_hub_does_not_take(hub: FakeHub, folder: Path, home: Path) -> None:
    rewritten(folder, "README.md", (folder / "README.md").read_bytes().replace(b"apache-2.0", b"no-such-licence"))
    assert "the Hub does not take the card" in said(hub, home, folder)


def rewritten(folder: Path, name: str, data: bytes) -> None:
    from hashlib import sha256

    (folder / name).write_bytes(data)
    path = folder / "swaa_manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))


def damaged(folder: Path, what: str) -> None:
    if what == "weights":
        path = folder / "model-00001-of-00002.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif what == "stray":
        (folder / "model-00003-of-00003.safetensors").write_bytes(b"half")
    elif what == "missing":
        (folder / "tokenizer.json").unlink()
    elif what == "code":
        rewritten(folder, "swaa_mask.py", b"import os\n")
    else:
        (folder / "swaa_manifest.json").unlink()


DAMAGES = [
    ("weights", "model-00001-of-00002.safetensors has other content"),
    ("stray", "model-00003-of-00003.safetensors is not in swaa_manifest.json"),
    ("missing", "tokenizer.json is missing"),
    ("code", "swaa_mask.py differs from what swaa-convert"),
    ("manifest", "has no swaa_manifest.json"),
]


@pytest.mark.parametrize(("what", "line"), DAMAGES)
def test_only_what_is_whole_is_pushed(what: str, line: str, hub: FakeHub, folder: Path, home: Path) -> None:
    damaged(folder, what)
    before = tree(folder)
    assert line in said(hub, home, folder)
    assert hub.sent() == [] and tree(folder) == before


@pytest.mark.parametrize("repo_id", ["a/b/c", "me/../x", "", "me/q3 swaa", "./q3-swaa"])
def test_ids_that_are_none(repo_id: str, folder: Path) -> None:
    assert "is no repo on the Hub" in refused("push-to-hub", folder, repo_id, code=2)


OPTIONS = [
    (["--revision", "c0ffee" + "0" * 34], "is no branch to push to"),
    (["--revision", "refs/heads/main"], "is no branch to push to"),
    (["--tag", "a b"], "is no tag"),
    (["--tag", "v1", "--create-pr"], "drop one of them"),
    (["--message", " "], "--message is empty"),
]


@pytest.mark.parametrize(("args", "line"), OPTIONS)
def test_options_that_say_nothing(args: list[str], line: str, folder: Path) -> None:
    assert line in refused("push-to-hub", folder, "me/q3", *args, code=2)


def test_no_such_folder(hub: FakeHub, tmp_path: Path, home: Path) -> None:
    assert "no folder" in said(hub, home, tmp_path / "none")
