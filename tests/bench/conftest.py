"""A converted repo and its models on one copy of the weights, made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swaa_convert.bench.models import Contestant, build
from swaa_convert.bench.settings import Settings
from swaa_convert.bench.subject import open_subject
from swaa_convert.bench.variants import parse_recipes, settle_variants
from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.support.sources import make_source

RECIPES = "dense:window=8+keep_first=2+interleave=odd,lean:window=8+keep_first=2+interleave=odd+fa_decode=off"
Make = Callable[..., list[Contestant]]


def settings(**changed: Any) -> Settings:
    """Tiny ones."""
    values: dict[str, Any] = {"lengths": (24, 40), "new_tokens": 3, "batch": 1, "repeats": 2}
    where = {"device": "cpu", "dtype": "float32", "backend": "sdpa"}
    return Settings(**(values | where | changed))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A function that builds the models of a folder."""

    def build_all(where: Path, recipes: str | None = RECIPES, **changed: Any) -> list[Contestant]:
        made = settings(**changed)
        subject = open_subject(str(where), random_weights=made.random_weights)
        workspace = tmp_path / f"workspace_{len(list(tmp_path.iterdir()))}"
        workspace.mkdir()
        return build(subject, None, settle_variants(recipes and parse_recipes(recipes), subject), made, workspace)

    return build_all


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory, qwen3_source: Path) -> Path:
    """A converted repo; read it, don't change it."""
    out = tmp_path_factory.mktemp("repos") / "bench_repo"
    return convert_checkpoint(qwen3_source, out, Recipe(window=8, keep_first=2, fa_decode=False), check=False)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a tiny checkpoint of a family."""

    def write(family: str, **config: Any) -> Path:
        return make_source(tmp_path_factory.mktemp(family), family, tokenizer=False, **config)

    return write
