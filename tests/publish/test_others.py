"""What is on the Hub already: what an earlier push left over goes, what others wrote stays."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

from swaa_convert.convert import convert_checkpoint
from swaa_convert.publish.pinned import pin_of
from swaa_convert.recipe import Recipe
from tests.publish.test_push import pushed
from tests.support.fake_hub import FakeHub, Repo
from tests.support.sources import make_source


def test_shards_of_an_earlier_push_go(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    pushed(hub).head["notes.txt"] = b"theirs"
    one = convert_checkpoint(make_source(tmp_path / "one"), tmp_path / "one-swaa", Recipe(window=8), check=False)
    result = hub.push(home, one, "me/q3-swaa")
    assert "Remove   README.source.md, model-00001-of-00002.safetensors" in result.stdout
    head = pushed(hub).head
    assert {name for name in head if name.endswith((".safetensors", ".txt", "index.json"))} == {
        "model.safetensors",
        "notes.txt",
    }


def test_a_card_that_was_edited_there_stays(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    pushed(hub).head["README.md"] += b"\nSee our blog.\n"
    result = hub.push(home, folder, "me/q3-swaa")
    assert "Keep     README.md" in result.stdout
    assert pushed(hub).head["README.md"].endswith(b"\nSee our blog.\n")
    listed = json.loads(pushed(hub).head["swaa_manifest.json"])["files"]["README.md"]
    assert listed["size"] == len(pushed(hub).head["README.md"])
    assert "Nothing has changed" in hub.push(home, folder, "me/q3-swaa").stdout


def test_the_card_of_a_new_repo_stays(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = Repo.new(**{"README.md": b"---\nlicense: mit\n---\n"})
    assert hub.push(home, folder, "me/q3-swaa").returncode == 0
    assert pushed(hub).head["README.md"] == b"---\nlicense: mit\n---\n"


def test_new_cards_of_ours_take_the_place_of_old_ones(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    for number, text in enumerate((b"second", b"third")):
        changed = _with_card(folder, tmp_path / str(number), text)
        assert "Keep" not in hub.push(home, changed, "me/q3-swaa", "--message", f"{number}, in my words").stdout
        head = pushed(hub).head["README.md"]
        pin = pin_of(head)
        assert head.endswith(text) and pin is not None and pushed(hub).commits[pin]["README.md"].endswith(text)
        assert f"{number}, in my words" in pushed(hub).messages
        assert "Nothing has changed" in hub.push(home, changed, "me/q3-swaa").stdout


def _with_card(folder: Path, other: Path, text: bytes) -> Path:
    """The same repo whose card, as listed, ends with a text."""
    shutil.copytree(folder, other)
    card = (other / "README.md").read_bytes() + text
    (other / "README.md").write_bytes(card)
    manifest = json.loads((other / "swaa_manifest.json").read_text())
    manifest["files"]["README.md"] = {"size": len(card), "sha256": sha256(card).hexdigest()}
    (other / "swaa_manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return other


def test_what_others_wrote_stays_though_it_was_the_same(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    name = "generation_config.json"
    hub.models["me/q3-swaa"] = Repo.new(**{name: (folder / name).read_bytes()})
    hub.push(home, folder, "me/q3-swaa", "-q")
    assert json.loads(pushed(hub).head["swaa_manifest.json"])["theirs"] == [name]
    assert "Nothing has changed" in hub.push(home, folder, "me/q3-swaa").stdout
    source = make_source(tmp_path / "one")
    (source / name).unlink()
    without = convert_checkpoint(source, tmp_path / "one-swaa", Recipe(window=8), check=False)
    assert f"{name} of something else, which would be loaded" in refused(hub, home, without)
    assert name in pushed(hub).head


def refused(hub: FakeHub, home: Path, folder: Path, *args: str) -> str:
    before = len(hub.sent())
    result = hub.push(home, folder, "me/q3-swaa", "-q", *args)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result.stderr
    assert len(hub.sent()) == before
    return result.stderr


def test_files_of_others_are_not_replaced(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = Repo.new(**{"config.json": b"{}", "tokenizer.json": b"{}"})
    assert "me/q3-swaa holds config.json and 1 more, which no push" in refused(hub, home, folder)
    assert "config.json" in refused(hub, home, folder, "--revision", "v2")


def test_nor_what_was_changed_there(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    pushed(hub).head["generation_config.json"] = b"{}"
    assert "generation_config.json, which" in refused(hub, home, folder)


def test_what_would_be_loaded_instead_of_it(hub: FakeHub, folder: Path, home: Path) -> None:
    hub.models["me/q3-swaa"] = Repo.new(**{"model.safetensors": b"theirs"})
    assert "model.safetensors of something else" in refused(hub, home, folder)


def test_a_commit_that_came_meanwhile(hub: FakeHub, folder: Path, home: Path) -> None:
    from tests.support.fake_hub import Fault

    hub.faults = [Fault("POST /api/models/me/q3-swaa/commit", status=412, body=b'{"error": "A commit has happened"}')]
    result = hub.push(home, folder, "me/q3-swaa", "-q")
    assert "it changed on the Hub meanwhile" in result.stderr and result.stderr.count("\n") == 1


def test_refreshed_code_sends_the_code_only(hub: FakeHub, folder: Path, home: Path, tmp_path: Path) -> None:
    hub.push(home, folder, "me/q3-swaa", "-q")
    manifest = json.loads((folder / "swaa_manifest.json").read_text())
    other = Path(shutil.copytree(folder, tmp_path / "older"))
    data = b"# of an older version\n" + (other / "swaa_mask.py").read_bytes()
    (other / "swaa_mask.py").write_bytes(data)
    manifest["files"]["swaa_mask.py"] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    manifest["code"]["version"] = "0.0.9"
    (other / "swaa_manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    result = hub.push(home, other, "me/q3-swaa")
    assert "Send     swaa_mask.py (" in result.stdout and "the code of swaa-convert 0.0.9" in result.stdout
