"""Fixtures of the embedded model's tests."""

import pytest
import torch

from tests.support.embed import Zoo

# The models are tiny, and tests run in parallel processes: a second thread only waits for its core.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Models that tests share."""
    return Zoo(tmp_path_factory.mktemp("zoo"))
