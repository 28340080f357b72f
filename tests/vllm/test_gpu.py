"""On a CUDA device: every backend, in CUDA graphs and out of them. Run with VLLM_USE_V2_MODEL_RUNNER=0 and with 1."""

from typing import Any

import pytest
import torch

from tests.support.embed import Zoo, load, prompt
from tests.vllm.engine import Served, engine, greedy, mixed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
RECIPES: dict[str, dict[str, Any]] = {
    "FA decode": {},
    "dense tail": {"fa_tail": 7, "full_layers": ()},
    "no FA decode": {"fa_decode": False},
    "FA decode in some layers": {"full_layers": (3,), "fa_decode_layers": (0, 2)},
}

BACKENDS: dict[str, dict[str, Any]] = {
    "TRITON_ATTN": {"attention_backend": "TRITON_ATTN"},
    "FLASH_ATTN": {"attention_backend": "FLASH_ATTN"},
    # As on older GPUs: Triton's kernel takes over.
    "flash-attention 2": {"attention_config": {"flash_attn_version": 2}},
}


@pytest.mark.parametrize("eager", [False, True], ids=["graphs", "eager"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_tokens(zoo: Zoo, recipe: str, backend: str, eager: bool) -> None:
    """Fresh, cached, and as the next turns, in a pool in which requests are preempted."""
    served = Served(zoo, **RECIPES[recipe])
    half = load(served.repo, "eager", dtype=torch.float16).to("cuda")
    options = {"dtype": "float16", "enforce_eager": eager, **BACKENDS[backend]}
    # Given in bytes, the cache's size isn't measured: other tests may run on the same GPU.
    memory = {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2**28, "num_gpu_blocks_override": 120}
    with engine(served.repo, **options, **memory) as llm:
        first = greedy(llm, mixed(2) + mixed(3), 32)
        _check(served, half, first)
        _check(served, half, greedy(llm, mixed(2)))
        turns = [[*output.prompt_token_ids, *output.outputs[0].token_ids, *prompt(30, 7)] for output in first]
        for _ in range(2):
            _check(served, half, greedy(llm, turns))


def _check(served: Served, half: Any, outputs: list[Any]) -> None:
    """As close to the reference as that is to itself in half precision; no token much likelier than the one chosen."""
    errors, rounding, gaps = [], [], []
    for output in outputs:
        asked, new = list(output.prompt_token_ids), list(output.outputs[0].token_ids)
        exact = served.log_probs(asked, new)
        rounding.append(served.log_probs(asked, new, half) - exact)
        chosen = exact.gather(1, torch.tensor(new)[:, None])[:, 0]
        given = [step[token].logprob for step, token in zip(output.outputs[0].logprobs, new, strict=True)]
        errors.append(torch.tensor(given) - chosen)
        gaps.append(exact.max(dim=-1).values - chosen)
    noise = torch.cat(rounding)
    error, gap = torch.cat(errors), torch.cat(gaps)
    assert error.square().mean().sqrt() <= 1.5 * noise.square().mean().sqrt()
    assert max(error.abs().max(), gap.max()) <= 2 * noise.abs().max()
