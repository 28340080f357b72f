"""What inspect refuses, in one line each."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from swaa_convert.inspect.command import inspect
from tests.inspect.conftest import MakeRepo, repo_config


def run(*arguments: object) -> Result:
    return CliRunner().invoke(inspect, [str(argument) for argument in arguments])


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in repo_config().items() if name != key}


BROKEN = [
    ("{", "config.json is not valid JSON"),
    ("[]", "config.json must hold a JSON object"),
    (json.dumps(without("swaa_config")), "is not a converted repo (config.json has no swaa_config)"),
    (json.dumps(without("num_hidden_layers")), "num_hidden_layers None, not a number of layers"),
    (json.dumps(without("num_attention_heads")), "config.json has no num_attention_heads"),
    (json.dumps(repo_config(keep_frist=1)), "unknown key 'keep_frist'; did you mean 'keep_first'?"),
    (json.dumps(repo_config(non_sliding_layers=[36])), "names layer 36, but the model has layers 0 to 35"),
    (json.dumps(repo_config(sliding_window_size="2k")), "sliding_window_size must be an integer"),
    (json.dumps(repo_config() | {"swaa_config": 1}), "swaa_config must be an object"),
    (json.dumps(repo_config() | {"head_dim": "wide"}), "config.json: invalid literal"),
]


@pytest.mark.parametrize(("config", "message"), BROKEN)
def test_broken_config(make_repo: MakeRepo, config: str, message: str) -> None:
    folder = make_repo()
    (folder / "config.json").write_text(config)
    result = run(folder)
    assert message in result.output and result.exit_code == 1
    assert len(result.output.splitlines()) == 1


def test_broken_recipe(make_repo: MakeRepo) -> None:
    result = run(make_repo(recipe="windwo: 1\n"))
    assert "swaa_recipe.yaml: unknown key 'windwo'" in result.output and result.exit_code == 1


def test_no_such_repo(tmp_path: Path) -> None:
    assert "no folder ./nowhere" in run("./nowhere").output
    assert "has no config.json" in run(tmp_path).output


@pytest.mark.parametrize("lengths", ["", "8x", "0", "8k,,2k", "-1"])
def test_lengths_that_are_none(make_repo: MakeRepo, lengths: str) -> None:
    result = run(make_repo(), "--lengths", lengths)
    assert result.exit_code == 2 and "--lengths" in result.output
