"""Fixtures of the tests of the families beyond the first four."""

import pytest
import torch

from tests.support.embed import Zoo

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Models that tests share."""
    return Zoo(tmp_path_factory.mktemp("families"))
