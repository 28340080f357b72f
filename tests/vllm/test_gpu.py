"""On a CUDA device: both backends, in CUDA graphs and out of them. Run with VLLM_USE_V2_MODEL_RUNNER=0 and with 1."""

from typing import Any

import pytest
import torch

from tests.support.embed import Zoo, prompt
from tests.vllm.engine import Served, engine, greedy, mixed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
RECIPES: dict[str, dict[str, Any]] = {
    "FA decode": {},
    "dense tail": {"fa_tail": 7, "full_layers": ()},
    "no FA decode": {"fa_decode": False},
    "FA decode in some layers": {"full_layers": (3,), "fa_decode_layers": (0, 2)},
}
# Half precision has about three digits, and scores here are large; a wrong mask is off by whole units.
TOLERANCE = 0.15


@pytest.mark.parametrize("eager", [False, True], ids=["graphs", "eager"])
@pytest.mark.parametrize("backend", ["TRITON_ATTN", "FLASH_ATTN"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_tokens(zoo: Zoo, recipe: str, backend: str, eager: bool) -> None:
    """Fresh, cached, and as the next turns, in a pool in which requests are preempted."""
    served = Served(zoo, **RECIPES[recipe])
    options = {"dtype": "float16", "attention_backend": backend, "enforce_eager": eager}
    # Given in bytes, the cache's size isn't measured: other tests may run on the same GPU.
    memory = {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**28, "num_gpu_blocks_override": 120}
    with engine(served.repo, **options, **memory) as llm:
        first = greedy(llm, mixed(2) + mixed(3), 32)
        _check(served, first)
        _check(served, greedy(llm, mixed(2)))
        turns = [[*output.prompt_token_ids, *output.outputs[0].token_ids, *prompt(30, 7)] for output in first]
        _check(served, greedy(llm, turns))


def _check(served: Served, outputs: list[Any]) -> None:
    """Each token is as likely as the reference says, and no other one clearly likelier."""
    for output in outputs:
        new = list(output.outputs[0].token_ids)
        expected = served.log_probs(list(output.prompt_token_ids), new)
        chosen = expected.gather(1, torch.tensor(new)[:, None])[:, 0]
        given = torch.tensor([step[token].logprob for step, token in zip(output.outputs[0].logprobs, new, strict=True)])
        torch.testing.assert_close(given, chosen, atol=TOLERANCE, rtol=0)
        assert (expected.max(dim=-1).values - chosen).max() < TOLERANCE
