"""The closed formulas against counting every pair of the mask."""

from itertools import product
from typing import Any

import pytest
import torch

from modeling import swaa_mask
from swaa_convert.inspect.figures import (
    Rule,
    attention_work,
    full_attention,
    kv_bytes_per_key,
    kv_dtype,
)

DEPTH = 4
WINDOWS = (None, 1, 2, 5, 40)
SINKS = (0, 1, 3, 8)
DECODES: tuple[bool | list[int], ...] = (False, True, [0, 1])
TAILS = (0, 1, 4, 50)
LENGTHS = [(0, 0), (1, 0), (1, 5), (4, 3), (7, 1), (8, 2), (20, 0), (20, 9)]


def swaa(window: int | None, keep: int, decode: bool | list[int], tail: int) -> dict[str, Any]:
    return {
        "sliding_window_size": window,
        "keep_first": keep,
        "force_fa_decode": decode,
        "non_sliding_layers": [1, 3],
        "fa_tail": tail if decode else 0,
        "version": 1,
    }


RULES = [Rule.from_config(swaa(*values), DEPTH) for values in product(WINDOWS, SINKS, DECODES, TAILS)]


def count_pairs(rule: Rule, layer: int, prompt: int, generated: int) -> int:
    queries = prompt + max(generated - 1, 0)
    return sum(rule.attends(layer, q, k, prompt) for q in range(queries) for k in range(queries))


@pytest.mark.parametrize(("prompt", "generated"), LENGTHS)
def test_pairs_equal_counting_the_mask(prompt: int, generated: int) -> None:
    for rule, layer in product(RULES, range(DEPTH)):
        counted = count_pairs(rule, layer, prompt, generated)
        assert rule.layer_pairs(layer, prompt, generated) == counted, (rule, layer)


@pytest.mark.parametrize("tokens", [1, 2, 6, 21])
def test_next_token_sees_what_the_mask_says(tokens: int) -> None:
    for rule in RULES:
        pairs = product(range(DEPTH), range(tokens + 1))
        assert rule.next_token_pairs(tokens) == sum(rule.attends(la, tokens, k, tokens) for la, k in pairs)


@pytest.mark.parametrize("tokens", [1, 2, 6, 21])
def test_cache_keeps_what_a_later_query_can_see(tokens: int) -> None:
    later = range(tokens, tokens + 60)
    for rule in RULES:
        cached = product(range(DEPTH), range(tokens))
        seen = [any(rule.attends(layer, q, key, tokens) for q in later) for layer, key in cached]
        assert rule.cached_keys(tokens) == sum(seen), rule


@pytest.mark.parametrize("prompt", [1, 6, 20])
def test_the_rule_is_the_models_own(prompt: int) -> None:
    queries, keys = torch.arange(26)[:, None], torch.arange(26)[None, :]
    for rule in (rule for rule in RULES if rule.window is not None):
        dense = queries >= prompt - rule.fa_tail if 0 in rule.fa_decode_layers else torch.tensor(False)
        theirs = swaa_mask.Rule(rule.window, rule.keep_first, 0 in rule.fa_decode_layers)
        ours = [[rule.attends(0, q, k, prompt) for k in range(26)] for q in range(26)]
        assert torch.equal(swaa_mask.attends(queries, keys, dense, theirs), torch.tensor(ours)), rule


def test_a_prompt_up_to_the_span_costs_what_full_attention_costs() -> None:
    rule = Rule.from_config(swaa(5, 3, False, 0), DEPTH)
    assert rule.pairs(8) == full_attention(DEPTH).pairs(8)
    assert rule.pairs(9) < full_attention(DEPTH).pairs(9)


def test_work_relative_to_full_attention() -> None:
    assert attention_work(swaa(None, 0, False, 0), DEPTH, 100, 10) == 1.0
    assert attention_work(swaa(5, 0, True, 0), DEPTH, 0, 0) == 1.0
    naive = swaa(1, 0, False, 0) | {"non_sliding_layers": []}
    assert attention_work(naive, DEPTH, 9, 0) == pytest.approx(9 / 45)


def test_long_lengths_are_exact_and_quick() -> None:
    rule = Rule.from_config(swaa(2048, 100, True, 0), 126)
    assert rule.layer_pairs(0, 10**12) == 2148 * 2149 // 2 + (10**12 - 2148) * 2148


CONFIGS = [
    ({"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "dtype": "bfloat16"}, 4096),
    ({"num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 2048, "torch_dtype": "float16"}, 2048),
    ({"num_attention_heads": 4, "head_dim": None, "hidden_size": 64}, 512),
    ({"num_attention_heads": 4, "head_dim": 16, "dtype": "float8_e4m3fn"}, 128),
]


@pytest.mark.parametrize(("config", "expected"), CONFIGS)
def test_bytes_per_key(config: dict[str, Any], expected: int) -> None:
    assert kv_bytes_per_key(config) == expected


def test_the_newer_name_of_the_dtype_wins() -> None:
    assert kv_dtype({"dtype": "bfloat16", "torch_dtype": "float32"}) == "bfloat16"
    assert kv_dtype({}) == "float32"
