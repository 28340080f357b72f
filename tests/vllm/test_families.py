"""Every family that can be converted."""

import pytest
from transformers import CONFIG_MAPPING, AutoModel

from swaa_convert.families import families
from swaa_convert.vllm.configs import config_class
from swaa_convert.vllm.stock import stock_class
from tests.support.embed import Zoo
from tests.vllm.engine import Served, engine, greedy, metric, mixed

# The installed transformers may be older than a family.
SERVED = [family.model_type for family in families() if family.model_type in CONFIG_MAPPING]

# vLLM 0.32 has no model of its own for it.
WRAPPED = "smollm3"

# In few blocks requests are preempted.
PROMPTS = [ids for seed in (4, 5) for ids in mixed(seed, (20, 54, 130, 257))]


def test_no_code_of_the_repo_runs(zoo: Zoo) -> None:
    """Even where it may."""
    served = Served(zoo, WRAPPED)
    with engine(served.repo, trust_remote_code=True) as llm:
        served.check(greedy(llm, mixed(4, (20, 130))))


def test_nobody_gets_modules_without_swaa() -> None:
    """vLLM's wrapper, used for our configuration but not by our model."""
    family = next(family for family in families() if family.model_type == WRAPPED)
    stock_class(family)
    config = config_class(family)(swaa_config={"sliding_window_size": 8}, num_hidden_layers=1)
    with pytest.raises(ValueError, match="served without model_impl"):
        AutoModel.from_config(config)


@pytest.mark.parametrize("family", SERVED)
def test_families(zoo: Zoo, family: str) -> None:
    """Full layers and windowed ones, with FA decode and without it."""
    served = Served(zoo, family, full_layers=(3,), fa_decode_layers=(0, 2))
    _check_preempted(served, 70)


@pytest.mark.parametrize("fa_decode, blocks", [(True, 36), (False, 45)])
@pytest.mark.parametrize("family", ["llama", WRAPPED])
def test_same_decoding_in_all_layers(zoo: Zoo, family: str, fa_decode: bool, blocks: int) -> None:
    served = Served(zoo, family, fa_decode=fa_decode)
    _check_preempted(served, blocks)


def _check_preempted(served: Served, blocks: int) -> None:
    with engine(served.repo, num_gpu_blocks_override=blocks) as llm:
        served.check(greedy(llm, PROMPTS, 20))
        assert metric(llm, "num_preemptions") > 0
