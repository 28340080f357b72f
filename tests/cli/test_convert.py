"""What a converted repo holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from swaa_convert.convert import convert_checkpoint
from swaa_convert.families import families, shipped_files
from swaa_convert.recipe import Recipe
from swaa_convert.resources import MODELING_DIR
from tests.support.command import run, tree
from tests.support.installed import if_installed
from tests.support.sources import FAMILIES, make_source, write_json

SMALL = Recipe(window=16, keep_first=4)


def config_of(repo: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((repo / "config.json").read_text())
    return config


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", [1, 3])
def test_source_files_byte_for_byte(family: str, shards: int, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family, shards=shards)
    before = tree(source)
    after = tree(convert_checkpoint(source, tmp_path / "out", SMALL))
    assert tree(source) == before
    assert {name: after[name] for name in before if name != "config.json"} == {
        name: data for name, data in before.items() if name != "config.json"
    }


@pytest.mark.parametrize("name", [if_installed(family.model_type) for family in families()])
def test_code_is_shipped_verbatim(name: str, tmp_path: Path) -> None:
    family = next(family for family in families() if family.model_type == name)
    repo = convert_checkpoint(make_source(tmp_path / "source", name), tmp_path / "out", SMALL, check=False)
    shipped = {path.name: path.read_bytes() for path in repo.glob("*.py")}
    assert shipped == {file: (MODELING_DIR / file).read_bytes() for file in shipped_files(family)}


def test_swaa_config(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, check=False)
    assert list(config_of(repo)["swaa_config"].items()) == [
        ("sliding_window_size", 16),
        ("keep_first", 4),
        ("force_fa_decode", True),
        ("non_sliding_layers", [1, 3]),
        ("fa_tail", 0),
        ("version", 1),
    ]


@pytest.mark.parametrize(
    ("recipe", "key", "expected"),
    [
        (Recipe(window=None), "sliding_window_size", None),
        (Recipe(fa_decode=False), "force_fa_decode", False),
        (Recipe(fa_decode_layers=(2, 1)), "force_fa_decode", [1, 2]),
        (Recipe(interleave="none"), "non_sliding_layers", []),
        (Recipe(full_layers=(3, 0)), "non_sliding_layers", [0, 3]),
        (Recipe(fa_tail=7), "fa_tail", 7),
    ],
)
def test_swaa_config_follows_the_recipe(
    recipe: Recipe, key: str, expected: object, source: Path, tmp_path: Path
) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", recipe, check=False)
    assert config_of(repo)["swaa_config"][key] == expected


def test_other_keys_keep_order_and_value(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen3", sliding_window=4096, max_window_layers=2, mine={"a": 1e-9})
    theirs, ours = config_of(source), config_of(convert_checkpoint(source, tmp_path / "out", SMALL, check=False))
    changed = {"architectures", "model_type"}
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {key: ours[key] for key in theirs.keys() - changed} == {key: theirs[key] for key in theirs.keys() - changed}
    assert (ours["architectures"], ours["model_type"]) == (["SwaaQwen3ForCausalLM"], "swaa_qwen3")
    assert list(ours["auto_map"]) == ["AutoConfig", "AutoModel", "AutoModelForCausalLM"]


@pytest.mark.parametrize(
    ("newer", "theta", "scaling"),
    [
        ({"rope_theta": 1e6, "rope_type": "default"}, 1e6, None),
        ({"rope_theta": 5e5}, 5e5, None),
        (
            {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0},
            5e5,
            {"rope_type": "linear", "factor": 8.0},
        ),
    ],
)
def test_newer_rope_is_written_the_older_way_too(
    newer: dict[str, Any], theta: float, scaling: object, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source", rope_parameters=newer, rope_theta=..., rope_scaling=...)
    config = config_of(convert_checkpoint(source, tmp_path / "out", SMALL, check=False))
    assert (config["rope_parameters"], config["rope_theta"], config["rope_scaling"]) == (newer, theta, scaling)


def test_newer_name_of_experts_is_written_the_older_way_too(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", "qwen3_moe")
    older = {key: value for key, value in config_of(source).items() if key != "num_experts"}
    write_json(source / "config.json", {**older, "num_local_experts": 4})
    written = config_of(convert_checkpoint(source, tmp_path / "out", SMALL, check=False))
    assert (written["num_experts"], written["num_local_experts"]) == (4, 4)


def test_older_rope_stays(source: Path, tmp_path: Path) -> None:
    config = config_of(convert_checkpoint(source, tmp_path / "out", SMALL, check=False))
    assert config["rope_theta"] == 10000.0
    assert "rope_parameters" not in config


def test_what_is_left_out(source: Path, tmp_path: Path) -> None:
    kept = ["LICENSE", "merges.txt", "tokenizer.model", "additional_chat_templates/rag.jinja", "notes.yaml"]
    dropped = [
        "modeling_evil.py", "pytorch_model.bin", "model.gguf", "model.onnx", "consolidated.safetensors",
        ".gitattributes", ".git/config", "original/params.json", "training_args.bin", "optimizer.pt",
        "pytorch_model.bin.index.json",
    ]  # fmt: skip
    for name in (*kept, *dropped):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    found = tree(convert_checkpoint(source, tmp_path / "out", SMALL, check=False))
    assert [name for name in kept if name not in found] == []
    assert [name for name in dropped if name in found] == []


def test_cards(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_bytes(b"---\nlicense: mit\n---\n# Theirs \xff\n")
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, check=False)
    assert (repo / "README.source.md").read_bytes() == (source / "README.md").read_bytes()
    assert "sliding-window" in (repo / "README.md").read_text()


def test_no_source_card(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, check=False)
    assert not (repo / "README.source.md").exists()


def test_recipe_remakes_the_repo(source: Path, tmp_path: Path) -> None:
    first = convert_checkpoint(source, tmp_path / "one", Recipe(window=9, interleave="auto", cot=True), check=False)
    assert run(source, "--recipe", first, "--out", tmp_path / "two", "-q").exit_code == 0
    assert tree(first) == tree(tmp_path / "two")
    assert yaml.safe_load((first / "swaa_recipe.yaml").read_text())["interleave"] == "odd"


def test_recipe_names_no_path_of_this_machine(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, check=False)
    written = b"".join(data for name, data in tree(repo).items() if not name.endswith((".safetensors", ".py")))
    assert str(tmp_path).encode() not in written


def test_reasoning_template(source: Path, tmp_path: Path) -> None:
    result = run(source, "--out", tmp_path / "out", "--cot", "--window", "16")
    assert "changed: tokenizer_config.json" in result.stdout
    assert (tmp_path / "out/tokenizer_config.json").read_bytes() != (source / "tokenizer_config.json").read_bytes()
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_linked_weights(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, link=True, check=False)
    assert (repo / "model.safetensors").samefile(source / "model.safetensors")
    assert not (repo / "tokenizer.json").samefile(source / "tokenizer.json")


def test_torch_is_not_imported_before_the_check(qwen3_source: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from swaa_convert.convert import convert_checkpoint\n"
        "from swaa_convert.recipe import Recipe\n"
        "convert_checkpoint(sys.argv[1], Path(sys.argv[2]), Recipe(), check=False)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script, str(qwen3_source), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_permissions_are_the_usual_ones(source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(source, tmp_path / "out", SMALL, check=False)
    (tmp_path / "plain").mkdir()
    assert repo.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (repo / "config.json").stat().st_mode == (source / "config.json").stat().st_mode


def test_a_cached_snapshot_is_a_source(source: Path, tmp_path: Path) -> None:
    commit, blobs = "a" * 40, tmp_path / "models--org--name/blobs"
    snapshot = blobs.parent / "snapshots" / commit
    snapshot.mkdir(parents=True)
    source.rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    repo = convert_checkpoint(snapshot, tmp_path / "out", SMALL, check=False)
    assert yaml.safe_load((repo / "swaa_recipe.yaml").read_text())["source"] == {"id": "org/name", "revision": commit}
    assert not any(path.is_symlink() for path in repo.iterdir())
