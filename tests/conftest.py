"""Fixtures that every folder of tests shares."""

from pathlib import Path

import pytest

from tests.support.sources import make_source


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
