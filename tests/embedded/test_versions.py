"""A repo that one version of transformers saved loads under the others, with the same logits.

Each version leaves what it saved in the folder that SWAA_CROSS_VERSION_DIR names, and reads what others left: run
this file once under every version, then once more.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.support.embed import FAMILIES, Zoo, greedy, load, logits, prompt
from tests.support.oracle import assert_close

IDS = prompt(90)
RECIPE = {"fa_tail": 2, "fa_decode_layers": (0,), "full_layers": (3,)}
ROPE = {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all versions share; a temporary one where none is named."""
    named = os.environ.get("SWAA_CROSS_VERSION_DIR")
    return Path(named) if named else tmp_path_factory.mktemp("shelf")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_versions_repos(zoo: Zoo, shelf: Path, family: str) -> None:
    agree(zoo, shelf, family, ROPE)


def agree(zoo: Zoo, shelf: Path, family: str, config: dict[str, Any]) -> None:
    """Leaves what this version makes of the family, and compares what all others have left."""
    _leave(zoo, shelf, family, config)
    for saved in sorted(shelf.glob(f"*/{family}_*")):
        found = torch.load(saved / "expected.pt")
        model = load(saved)
        assert_close(logits(model, [IDS], dense_from=60), found["logits"])
        assert greedy(model, IDS, 8) == found["tokens"]


def _leave(zoo: Zoo, shelf: Path, family: str, config: dict[str, Any]) -> None:
    """Saves a repo and what it computes, whole or not at all. Names differ: equal ones would share their code."""
    version = transformers.__version__
    target = shelf / version / f"{family}_{version.replace('.', '_')}"
    if target.exists():
        return
    building = target.with_name(f".{target.name}_{os.getpid()}")
    model = load(zoo.repo(family, config=config, **RECIPE))
    model.save_pretrained(building)
    found = {"logits": logits(model, [IDS], dense_from=60), "tokens": greedy(model, IDS, 8)}
    torch.save(found, building / "expected.pt")
    building.rename(target)


def test_the_logits_are_the_truth(zoo: Zoo) -> None:
    """What versions are compared by is right itself."""
    actual = logits(zoo.model(config=ROPE, **RECIPE), [IDS], dense_from=60)
    oracle = zoo.oracle(config=ROPE, **RECIPE)
    assert_close(actual[0], oracle.logits(IDS, lambda position: position >= 60))
