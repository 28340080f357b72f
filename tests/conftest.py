"""What every folder of tests shares: no network, a Hugging Face home of their own, tiny sources."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything imports huggingface_hub, which reads these once.
_HOME = tempfile.mkdtemp(prefix="swaa-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ.update(HF_HOME=_HOME, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import pytest  # noqa: E402

from tests.support.sources import make_source  # noqa: E402


@pytest.fixture(scope="session")
def qwen3_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 checkpoint; read it, don't change it."""
    return make_source(tmp_path_factory.mktemp("sources") / "qwen3", "qwen3")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tiny Qwen3 checkpoint of the test's own, to change at will."""
    return make_source(tmp_path / "source", "qwen3")


@pytest.fixture
def exact_products() -> Iterator[None]:
    """No TF32: float32 means float32, on a GPU too."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)
