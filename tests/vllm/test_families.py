"""Every family that can be converted and that this vLLM has a model for."""

from typing import Any

import pytest

from swaa_convert.families import families
from swaa_convert.vllm.stock import serves
from tests.support.embed import FAMILIES, Zoo
from tests.support.more_families import MORE_FAMILIES
from tests.vllm.engine import Served, engine, greedy, mixed

HERE = {family.model_type: family for family in families()}
# vLLM 0.32 computes the source models themselves otherwise than transformers does.
STOCK_DIFFERS = ("apertus", "ministral3")
# The tiny one has LongRoPE, whose factors vLLM chooses once for all prompts.
LONG_ROPE = ("phi3",)
KNOWN = [name for name in (*FAMILIES, *MORE_FAMILIES) if name in HERE and name not in (*STOCK_DIFFERS, *LONG_ROPE)]
SERVED = [name for name in KNOWN if serves(HERE[name])]


def test_some_families_are_served() -> None:
    assert {"qwen3", "qwen2", "qwen3_moe", "llama"} <= set(SERVED)


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False, "fa_tail": 0}], ids=["FA decode", "no FA decode"])
@pytest.mark.parametrize("family", SERVED)
def test_families(zoo: Zoo, family: str, recipe: dict[str, Any]) -> None:
    served = Served(zoo, family, **recipe)
    with engine(served.repo) as llm:
        served.check(greedy(llm, mixed(4, (20, 54, 130, 257))))
