"""Fixtures that every folder of tests shares."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

from tests.support.sources import make_source

# Before transformers is imported: the code of loaded repos is copied there, and test runs must not share it.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="swaa-modules-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)
# Tests run in parallel processes; more threads than cores would only slow them down.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never reach the real Hub."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def qwen3_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 checkpoint; read it, don't change it."""
    return make_source(tmp_path_factory.mktemp("sources") / "qwen3", "qwen3")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tiny Qwen3 checkpoint of the test's own, to change at will."""
    return make_source(tmp_path / "source", "qwen3")
