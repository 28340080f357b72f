"""A converted repo to push, and a Hub to push it to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.support.fake_hub import FakeHub, serve
from tests.support.sources import make_source

LICENCE = "---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Theirs\n"


@pytest.fixture(scope="session")
def converted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = make_source(tmp_path_factory.mktemp("publish") / "q3", "qwen3", shards=2)
    (source / "README.md").write_text(LICENCE)
    out = source.parent / "q3-swaa"
    return convert_checkpoint(source, out, Recipe(window=16, keep_first=2), check=False)


@pytest.fixture
def folder(converted_once: Path, tmp_path: Path) -> Path:
    """A converted repo of the test's own."""
    return Path(shutil.copytree(converted_once, tmp_path / "q3-swaa"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with serve(FakeHub({})) as served:
        yield served


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the client keeps what it keeps."""
    return tmp_path / "home"
