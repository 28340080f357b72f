"""A source and the repo that was made of it, for each test anew."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.support.sources import make_source


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source of two shards and a repo; read it, don't change it."""
    folder = tmp_path_factory.mktemp("pair")
    make_source(folder / "source", "qwen3", shards=2)
    convert_checkpoint(folder / "source", folder / "repo", Recipe(window=8, keep_first=2), check=False)
    return folder


@pytest.fixture
def repo(pair: Path, tmp_path: Path) -> Iterator[Path]:
    """The repo, to change at will; the source lies beside it."""
    yield shutil.copytree(pair, tmp_path / "pair") / "repo"
