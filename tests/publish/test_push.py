"""Pushing with the real client to a Hub on this machine: what is there afterwards, and how it is loaded."""

import json
import re
from pathlib import Path

from swaa_convert.manifest import MANIFEST
from swaa_convert.publish.pinned import pin_of
from tests.support.command import run, tree
from tests.support.fake_hub import COMMIT, TOKEN, FakeHub, Repo

LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("me/q3-swaa", trust_remote_code=True, **eval(sys.argv[1]))
tokenizer = AutoTokenizer.from_pretrained("me/q3-swaa", trust_remote_code=True, **eval(sys.argv[1]))
prompt = tokenizer("x" * 40, return_tensors="pt")["input_ids"]
print(type(model).__name__, model.generate(prompt, max_new_tokens=2, do_sample=False).shape[1])
"""


def pushed(hub: FakeHub, name: str = "me/q3-swaa") -> Repo:
    repo = hub.models[name]
    assert isinstance(repo, Repo)
    return repo


def test_everything_is_there_and_pinned(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    before = tree(folder)
    result = hub.push(home, folder, "me/q3-swaa")
    assert result.returncode == 0, result.stderr
    repo = pushed(hub)
    loaded = re.search(
        r'from_pretrained\("me/q3-swaa", revision="([0-9a-f]{40})", trust_remote_code=True\)', result.stdout
    )
    assert loaded is not None and repo.commits[loaded[1]].keys() == before.keys() | {".gitattributes"}
    assert pin_of(repo.head["README.md"]) == loaded[1] and not repo.private
    changed = {name for name in before if repo.head[name] != before[name]}
    assert changed == {"README.md", MANIFEST} and tree(folder) == before
    assert repo.messages[1:] == ["Converted by swaa-convert 0.1.0", f"Model card: load {loaded[1][:12]}"]


def test_each_commit_is_what_was_converted(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    commits = list(pushed(hub).commits.values())[1:]
    for number, commit in enumerate(commits):
        for name, data in commit.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        assert run("verify", tmp_path / str(number)).exit_code == 0
    assert len(commits) == 2


def test_nothing_has_changed(hub: FakeHub, folder: Path, home: Path) -> None:
    first = hub.push(home, folder, "q3-swaa", "--quiet")
    sent = len(hub.sent())
    again = hub.push(home, folder, "q3-swaa")
    assert "Nothing has changed: all of it is on the Hub already" in again.stdout
    assert len(hub.sent()) == sent and first.stdout in again.stdout and first.stdout.count("\n") == 1


def test_dry_run(hub: FakeHub, folder: Path, home: Path) -> None:
    result = hub.push(home, folder, "me/q3-swaa", "--private", "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert "To       me/q3-swaa, new, private" in result.stdout and "Dry run: nothing was pushed." in result.stdout
    assert (hub.sent(), hub.models) == ([], {})


def test_private_and_the_token_is_nowhere(hub: FakeHub, folder: Path, home: Path) -> None:
    result = hub.push(home, folder, "lab/q3-swaa", "--private")
    assert pushed(hub, "lab/q3-swaa").private
    written = [*tree(home).values(), *tree(folder).values(), *pushed(hub, "lab/q3-swaa").head.values()]
    assert TOKEN not in result.stdout + result.stderr and not [data for data in written if TOKEN.encode() in data]


def test_a_token_from_the_clients_own_file(hub: FakeHub, folder: Path, home: Path) -> None:
    home.mkdir()
    (home / "token").write_text(TOKEN)
    assert hub.push(home, folder, "me/q3-swaa", token=None).returncode == 0


def test_branch_message_and_tag(hub: FakeHub, folder: Path, home: Path) -> None:
    result = hub.push(home, folder, "me/q3-swaa", "--revision", "win/16", "--message", "16 tokens", "--tag", "v1")
    assert result.returncode == 0, result.stderr
    repo = pushed(hub)
    assert set(repo.head) == {".gitattributes"} and "16 tokens" in repo.messages
    assert repo.tags == {"v1": repo.refs["win/16"]} and "config.json" in repo.commits[repo.tags["v1"]]
    again = hub.push(home, folder, "me/q3-swaa", "--revision", "win/16", "--tag", "v1")
    assert "Nothing has changed" in again.stdout


def test_a_branch_of_what_is_there_already(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.push(home, folder, "me/q3-swaa")
    hub.push(home, folder, "me/q3-swaa", "--revision", "v2")
    assert pushed(hub).refs["v2"] == pushed(hub).refs["main"]


def test_pull_request(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["their/q3-swaa"] = Repo.new()
    result = hub.push(home, folder, "their/q3-swaa", "--create-pr")
    repo = pushed(hub, "their/q3-swaa")
    assert set(repo.head) == {".gitattributes"} and result.returncode == 0, result.stderr
    assert "/their/q3-swaa/discussions/1" in result.stdout and set(repo.refs) == {"main", "refs/pr/1"}
    pin = pin_of(repo.commits[repo.refs["refs/pr/1"]]["README.md"])
    assert pin is not None and pin in result.stdout and "config.json" in repo.commits[pin]


def test_a_pull_request_is_brought_up_to_date(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = Repo.new()
    hub.push(home, folder, "me/q3-swaa", "--create-pr")
    again = hub.push(home, folder, "me/q3-swaa", "--revision", "refs/pr/1")
    assert "Nothing has changed" in again.stdout


def test_the_way_back(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    commit = hub.push(home, folder, "me/q3-swaa", "-q").stdout.split('"')[3]
    pinned = repr({"revision": commit})
    load = hub.python(tmp_path / "clean", LOAD, pinned)
    assert (load.returncode, load.stdout.split()) == (0, ["SwaaQwen3ForCausalLM", "42"]), load.stderr
    offline = hub.python(tmp_path / "clean", LOAD, pinned, offline=True)
    assert offline.stdout == load.stdout, offline.stderr
    latest = hub.python(tmp_path / "other", LOAD, "{}")
    assert latest.stdout == load.stdout, latest.stderr


def test_inspecting_what_was_pushed(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    commit = hub.push(home, folder, "me/q3-swaa", "-q").stdout.split('"')[3]
    for options in ([], ["--revision", commit]):
        result = hub.convert(tmp_path / "clean", "inspect", "me/q3-swaa", "--json", *options)
        assert json.loads(result.stdout)["repo"]["name"] == "me/q3-swaa", result.stdout
    assert hub.downloaded() == {"config.json", "swaa_recipe.yaml", MANIFEST}


def test_pushed_repos_are_refused_as_sources(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    result = hub.convert(home, "me/q3-swaa", "--out", tmp_path / "out", "-q")
    assert result.returncode == 1 and result.stderr.count("\n") == 1


def test_what_was_fetched_is_pushed_elsewhere(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    fetched = "from huggingface_hub import snapshot_download; print(snapshot_download('me/q3-swaa'))"
    where = hub.python(home, fetched).stdout.strip()
    assert "Nothing has changed" in hub.push(home, where, "me/q3-swaa").stdout
    hub.push(home, where, "me/copy", "-q")
    assert b'repo, commit = "me/copy"' in pushed(hub, "me/copy").head["README.md"]
    assert COMMIT not in pushed(hub, "me/copy").refs.values()
