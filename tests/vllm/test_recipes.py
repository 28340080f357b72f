"""Every token of every kind of recipe, with an ample pool of blocks and with a tiny one."""

from typing import Any

import pytest

from tests.support.embed import Zoo, prompt
from tests.vllm.engine import Served, engine, greedy, metric, mixed

RECIPES: dict[str, dict[str, Any]] = {
    "FA decode": {},
    "no FA decode": {"fa_decode": False},
    "FA decode in some layers": {"full_layers": (3,), "fa_decode_layers": (0, 2)},
    "FA decode in some layers, dense tail": {"full_layers": (3,), "fa_decode_layers": (0, 2), "fa_tail": 40},
    "dense tail": {"fa_tail": 7},
    "dense tail past a prompt": {"fa_tail": 60, "full_layers": ()},
    "no sinks": {"keep_first": 0},
    "no sinks, no FA decode": {"keep_first": 0, "fa_decode": False},
    "sinks past the prompt": {"keep_first": 900},
    "sinks past the prompt, no FA decode": {"keep_first": 900, "fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "every layer windowed, no FA decode": {"full_layers": (), "fa_decode": False},
    "one layer windowed, no FA decode": {"full_layers": (0, 1, 3), "fa_decode": False},
    "no layer windowed": {"window": None, "keep_first": 0, "full_layers": None, "fa_decode": False},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_ample_pool(zoo: Zoo, recipe: str) -> None:
    """Fresh, then from the prefix cache, then with shared prefixes and as next turns of the same chats."""
    served = Served(zoo, **RECIPES[recipe])
    with engine(served.repo) as llm:
        first = greedy(llm, mixed())
        served.check(first)
        served.check(greedy(llm, mixed()))
        served.check(greedy(llm, _relatives(prompt(401, 1))))
        # What a chat caches, the same chat's next reading finds.
        for _ in range(2):
            served.check(greedy(llm, next_turns(first)))
        assert metric(llm, "prefix_cache_hits") > 0


def test_a_long_answer_in_a_prompt_read_twice(zoo: Zoo) -> None:
    """Blocks of the same text, once generated and once read: windowed layers that release theirs cached the first."""
    served = Served(zoo, **RECIPES["FA decode in some layers, dense tail"])
    with engine(served.repo) as llm:
        first = greedy(llm, [prompt(130)], 100)
        for _ in range(2):
            served.check(greedy(llm, next_turns(first), 4))


@pytest.mark.parametrize("recipe", RECIPES)
def test_tiny_pool(zoo: Zoo, recipe: str) -> None:
    """Blocks run out: requests are preempted and start anew, and what was cached is overwritten."""
    served = Served(zoo, **RECIPES[recipe])
    with engine(served.repo, num_gpu_blocks_override=70) as llm:
        first = greedy(llm, mixed(2) + mixed(3), 32)
        served.check(first)
        served.check(greedy(llm, next_turns(first)))
        assert metric(llm, "num_preemptions") > 0 or recipe.startswith("every layer windowed, no")


def _relatives(ids: list[int]) -> list[list[int]]:
    """Prompts that begin like `ids` and end at, before and after the border of a block."""
    more = prompt(40, 9)
    return [*(ids[:length] for length in (319, 320, 321, 325, 352)), ids + more, ids[:320] + more, ids[:200] + more]


def next_turns(outputs: list[Any]) -> list[list[int]]:
    """Each prompt with its answer and a next question."""
    return [[*output.prompt_token_ids, *output.outputs[0].token_ids, *prompt(30, 7)] for output in outputs]
