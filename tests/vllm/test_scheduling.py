"""Ways to run a batch: none changes a token."""

from typing import Any

import pytest

from tests.support.embed import Zoo, prompt
from tests.vllm.engine import Served, engine, greedy, mixed

RECIPES: dict[str, dict[str, Any]] = {
    "FA decode": {},
    "dense tail": {"fa_tail": 7, "full_layers": ()},
    "no FA decode": {"fa_decode": False},
}
LENGTHS = (3, 47, 53, 85, 130, 200)


@pytest.mark.parametrize("recipe", RECIPES)
def test_chunked_prefill(zoo: Zoo, recipe: str) -> None:
    """17 tokens a step: chunks end anywhere, some with a single token."""
    served = Served(zoo, **RECIPES[recipe])
    options = {"max_num_batched_tokens": 17, "max_num_seqs": 8, "num_gpu_blocks_override": 70}
    with engine(served.repo, **options) as llm:
        served.check(greedy(llm, mixed(5, LENGTHS)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_without_prefix_caching(zoo: Zoo, recipe: str) -> None:
    served = Served(zoo, **RECIPES[recipe])
    with engine(served.repo, enable_prefix_caching=False, num_gpu_blocks_override=70) as llm:
        served.check(greedy(llm, mixed(6, LENGTHS) * 2))


def test_several_samples_of_one_prompt(zoo: Zoo) -> None:
    """Samples share the prompt's blocks, and diverge."""
    served = Served(zoo)
    with engine(served.repo) as llm:
        (output,) = greedy(llm, [prompt(130)], n=4, temperature=0.8, seed=1)
        assert len({tuple(answer.token_ids) for answer in output.outputs}) > 1
        for answer in output.outputs:
            new = list(answer.token_ids)
            given = [step[token].logprob for step, token in zip(answer.logprobs, new, strict=True)]
            expected = served.log_probs(prompt(130), new)
            assert given == pytest.approx(
                [float(row[token]) for row, token in zip(expected, new, strict=True)], abs=1e-4
            )


def test_without_the_hybrid_manager(zoo: Zoo) -> None:
    """All layers keep everything, whatever their rule."""
    served = Served(zoo, full_layers=(3,), fa_decode_layers=(0, 2))
    with engine(served.repo, disable_hybrid_kv_cache_manager=True) as llm:
        served.check(greedy(llm, mixed(7, LENGTHS)))
        served.check(greedy(llm, mixed(7, LENGTHS)))


def test_compiled(zoo: Zoo) -> None:
    """vLLM's default, torch.compile around the attention."""
    served = Served(zoo)
    with engine(served.repo, enforce_eager=False) as llm:
        served.check(greedy(llm, mixed(8, LENGTHS)))
