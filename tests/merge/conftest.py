"""Sources and adapters that many tests read, each made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.merge.changes import setting
from tests.support.adapters import copied, make_adapter
from tests.support.sources import make_source

# peft's own loader of MoE adapters needs a later transformers.
MOE_IS_BROKEN = transformers.__version__.startswith("5.0.")
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Path]], Path]:
    """Makes each named folder once."""
    root, found = tmp_path_factory.mktemp("merge"), dict[str, Path]()

    def make(name: str, maker: Callable[[Path], Path]) -> Path:
        if name not in found:
            found[name] = maker(root / name)
        return found[name]

    return make


@pytest.fixture(scope="session")
def source_of(made: Any) -> Make:
    """A tiny checkpoint by family, tied or not, in a dtype; read it, don't change it."""

    def source(family: str = "qwen3", tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Path:
        if family == "qwen3_moe" and MOE_IS_BROKEN:
            pytest.skip("this transformers cannot load MoE adapters with peft")
        name = f"{family}-{'tied' if tied else 'untied'}-{dtype}".replace("torch.", "")
        options = {"tie_word_embeddings": tied, "dtype": dtype, "shards": 3}
        return made(name, lambda path: make_source(path, family, **options))

    return source


@pytest.fixture(scope="session")
def adapter_of(made: Any) -> Make:
    """A LoRA for a source; read it, don't change it."""

    def adapter(source: Path, name: str = "plain", **config: Any) -> Path:
        return made(f"{source.name}-{name}", lambda path: make_adapter(source, path, **config))

    return adapter


@pytest.fixture
def adapter(source_of: Make, adapter_of: Make, tmp_path: Path) -> Path:
    """An adapter of the test's own."""
    own = copied(adapter_of(source_of()), tmp_path / "adapter")
    setting(base_model_name_or_path="org/base")(own)
    return own
