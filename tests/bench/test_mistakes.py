"""What a user can do wrong: one line that names it, before anything is measured."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from swaa_convert.bench import compare as comparing
from swaa_convert.bench import models
from swaa_convert.bench.output import check_writable, written
from swaa_convert.bench.settings import settle
from swaa_convert.bench.variants import parse_recipes
from swaa_convert.errors import SwaaUsageError
from tests.support.command import refused
from tests.support.sources import make_config, make_source


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may come as far as a run."""
    monkeypatch.delattr(comparing, "measure")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(make_config("qwen3")))
    return file


USAGE = [
    (["--recipes", "quality,"], "a recipe is empty: take out the comma"),
    (["--baseline", ""], "--baseline is empty: give a folder"),
    (["--batch", str(10**30)], "'--batch'"),
    (["--new-tokens", str(10**30)], "'--new-tokens'"),
    (["--json", ""], "'.' is no file that can be written: name another"),
    (["--png", "/dev/null"], "'/dev/null' is no file that can be written: name another"),
    (["--device", "meta"], "--device meta holds no data: name one that does"),
    (["--device", "hpu"], "--device hpu: "),
    (["--revision", "main"], "is a local file: drop --revision"),
]


@pytest.mark.parametrize(("args", "said"), USAGE)
def test_usage(args: list[str], said: str, config: Path) -> None:
    assert said in refused("bench", config, "--random-weights", *args, code=2)


def test_blanks_around_recipes_and_settings_mean_nothing() -> None:
    one, other = parse_recipes(" slow : quality + window = 8 , efficiency ")
    assert one.recipe is not None and (one.name, one.recipe.window) == ("slow", 8) and other.name == "efficiency"


def test_a_recipe_that_does_not_fit_is_named(config: Path) -> None:
    said = refused(
        "bench", config, "--random-weights", "--recipes", "early:interleave=even,late:interleave=odd", "--layers", "1"
    )
    assert said.startswith("--recipes late: interleave odd starts at layer 1")


def damaged(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"xx")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def of_unknown_activation(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "nope"}))


BASELINES = [
    (damaged, "model.safetensors is damaged"),
    (without_weights, "other has no weights: neither model.safetensors nor"),
    (without_config, "other has no config.json"),
    (of_unknown_activation, "the model can't be built (KeyError: 'nope'): take another --backend or another"),
    (shutil.rmtree, "no folder"),
]


@pytest.mark.parametrize(("damage", "said"), BASELINES)
def test_a_baseline_that_fails_is_named(damage: object, said: str, qwen3_source: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", "llama", tokenizer=False)
    assert callable(damage)
    damage(other)
    assert refused("bench", qwen3_source, "--baseline", other).startswith(f"--baseline {other}: {said}")


def test_a_baseline_with_fewer_layers_is_named(qwen3_source: Path, tmp_path: Path) -> None:
    other = make_source(tmp_path / "other", "llama", tokenizer=False, num_hidden_layers=2)
    said = refused("bench", qwen3_source, "--baseline", other, "--layers", "3", code=2)
    assert said == f"--baseline {other}: --layers 3: other has 2"


def test_no_weights_are_fetched_for_what_cannot_be_built(
    qwen3_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(models, "_link_weights")
    assert "nonsense" in refused("bench", qwen3_source, "--backend", "nonsense")
    other = make_source(tmp_path / "other", "llama", tokenizer=False)
    without_weights(other)
    assert "has no weights" in refused("bench", qwen3_source, "--baseline", other)


def test_too_little_memory_for_the_model(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(models, "randomise", fail)
    said = refused("bench", config, "--random-weights")
    assert said == "the model can't be built (MemoryError: MemoryError): take fewer --layers"


def test_an_output_in_a_folder_that_is_not_there(config: Path, tmp_path: Path) -> None:
    for option in ("--json", "--png"):
        said = refused("bench", config, "--random-weights", option, tmp_path / "no" / "file")
        assert said == f"{tmp_path}/no/file: No such file or directory: name a file that can be written"


def test_a_matplotlib_that_does_not_start(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Refusing(), *sys.meta_path])
    said = refused("bench", config, "--random-weights", "--png", tmp_path / "x.png")
    assert said == "--png: matplotlib can't start (backend: 'nonsense'): unset MPLBACKEND, or mend its settings"


class _Refusing:
    """What matplotlib does under MPLBACKEND=nonsense."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "matplotlib.figure":
            raise ValueError("backend: 'nonsense'")


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    with written(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "new"
    with pytest.raises(SwaaUsageError, match="no file"):
        check_writable(tmp_path / "real")


def test_a_numbered_cpu_is_a_cpu() -> None:
    made = settle("cpu:0", {"batch": 1, "repeats": 1, "backend": "sdpa"})
    assert made.lengths == (512, 2048) and made.dtype == "float32"
