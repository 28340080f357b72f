"""vLLM's engine on a converted repo, and its answers beside those of the eager reference."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tests.support.embed import Zoo, prompt

BLOCK = 32
# Heads as wide as vLLM's CPU kernels need them.
SHAPE: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1}
# The tiny source's factors are for narrower heads.
SHAPES: dict[str, dict[str, Any]] = {
    "phi3": {**SHAPE, "rope_scaling": None},
    "jais2": {**SHAPE, "head_dim": 32},
    # Each of its heads has keys of its own.
    "persimmon": {"num_attention_heads": 2},
    "helium": {**SHAPE, "head_dim": 32},
    "hunyuan_v1_dense": {**SHAPE, "head_dim": 32},
    "phi": {"num_attention_heads": 2},
    "olmo2": {"num_attention_heads": 2, "num_key_value_heads": 2},
}
RECIPE: dict[str, Any] = {"window": 48, "keep_first": 5}
LENGTHS = (3, 47, 53, 54, 130, 257, 401)


class Served:
    """One recipe of one family."""

    def __init__(self, zoo: Zoo, family: str = "qwen3", **recipe: Any) -> None:
        self.zoo, self.family = zoo, family
        self.recipe = {**RECIPE, **recipe}
        self.config = SHAPES.get(family, SHAPE)

    @property
    def repo(self) -> Path:
        return self.zoo.repo(self.family, config=self.config, **self.recipe)

    @property
    def reference(self) -> Any:
        return self.zoo.model(self.family, "eager", config=self.config, **self.recipe)

    def check(self, outputs: Sequence[Any]) -> None:
        """Each generated token is the reference's likeliest, with the same log-probability."""
        for output in outputs:
            asked, answer = list(output.prompt_token_ids), output.outputs[0]
            new = list(answer.token_ids)
            expected = self.log_probs(asked, new)
            assert_greedy(expected, new)
            if answer.logprobs:
                given = [step[token].logprob for step, token in zip(answer.logprobs, new, strict=True)]
                assert_log_probs(given, expected, new)

    def log_probs(self, asked: list[int], new: list[int], model: Any = None) -> torch.Tensor:
        """Of the reference, or another model, before each generated token: (tokens, vocabulary)."""
        model = self.reference if model is None else model
        dense_from = max(0, len(asked) - self.recipe.get("fa_tail", 0))
        with torch.no_grad():
            ids = torch.tensor([asked + new], device=model.device)
            logits = model(ids, dense_from=dense_from, use_cache=False).logits[0]
        return logits[len(asked) - 1 : -1].float().log_softmax(dim=-1).cpu()


def assert_greedy(expected: torch.Tensor, tokens: list[int]) -> None:
    """Each token is the likeliest; of two that are equally likely to the last digits, either."""
    chosen = expected.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert (expected.max(dim=-1).values - chosen).max() < 1e-4


def assert_log_probs(given: Sequence[float], expected: torch.Tensor, tokens: list[int]) -> None:
    """Within 1e-4."""
    wanted = expected.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(given), wanted, atol=1e-4, rtol=0)


@contextmanager
def engine(repo: Path, **options: Any) -> Iterator[Any]:
    """vLLM's offline engine, in this process."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    defaults = {
        "dtype": "float32",
        "max_model_len": 512,
        "block_size": BLOCK,
        "enforce_eager": True,
        "max_num_batched_tokens": 256,
        "max_num_seqs": 16,
        "disable_log_stats": False,
    }
    llm = LLM(str(repo), **{**defaults, **options})
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def greedy(llm: Any, prompts: Sequence[list[int]], new: int = 16, **options: Any) -> list[Any]:
    """Greedy answers of `new` tokens, all prompts at once."""
    from vllm import SamplingParams

    settings = SamplingParams(**{"temperature": 0, "max_tokens": new, "ignore_eos": True, "logprobs": 0, **options})
    outputs: list[Any] = llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
    return outputs


def mixed(seed: int = 1, lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    """Prompts of all kinds of lengths."""
    return [prompt(length, seed) for length in lengths]


def metric(llm: Any, name: str) -> int:
    """A counter of the engine's."""
    return int(sum(found.value for found in llm.get_metrics() if found.name == f"vllm:{name}"))
