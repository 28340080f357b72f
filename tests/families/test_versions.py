"""A repo that one version of transformers saved loads under the others: see tests/embedded/test_versions.py."""

from pathlib import Path

from tests.embedded.test_versions import agree, shelf  # noqa: F401
from tests.families.matrix import each
from tests.support.embed import Zoo


@each()
def test_every_versions_repos(zoo: Zoo, shelf: Path, family: str) -> None:  # noqa: F811
    agree(zoo, shelf, family, {})
