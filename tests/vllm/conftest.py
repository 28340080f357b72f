"""Real vLLM on a CPU. Without vLLM, only the arithmetic is tested."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before vLLM reads them: its engine in this process, a small cache, the plugin and nothing else of its kind.
os.environ.update(
    VLLM_CACHE_ROOT=os.environ["HF_HOME"] + "/vllm",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_LOGGING_LEVEL="ERROR",
    VLLM_NO_USAGE_STATS="1",
    VLLM_PLUGINS="swaa",
)
if importlib.util.find_spec("vllm") is None:
    collect_ignore = [p.name for p in Path(__file__).parent.glob("test_*.py") if p.name != "test_segments.py"]

from tests.support.embed import Zoo  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """vLLM warns about a CPU's lacks at length."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    """Converted repos and their reference models, shared by all tests."""
    yield Zoo(tmp_path_factory.mktemp("vllm"))
