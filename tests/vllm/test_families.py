"""Every family that can be converted."""

from typing import Any

import pytest

from swaa_convert.families import families
from tests.support.embed import Zoo
from tests.vllm.engine import Served, engine, greedy, mixed

SERVED = [family.model_type for family in families()]


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False, "fa_tail": 0}], ids=["FA decode", "no FA decode"])
@pytest.mark.parametrize("family", SERVED)
def test_families(zoo: Zoo, family: str, recipe: dict[str, Any]) -> None:
    served = Served(zoo, family, **recipe)
    with engine(served.repo) as llm:
        served.check(greedy(llm, mixed(4, (20, 54, 130, 257))))
