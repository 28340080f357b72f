"""Windowed layers without FA decode release their blocks; generated blocks are never reused wrongly."""

from typing import Any

import pytest
import torch

from tests.support.embed import Zoo, prompt
from tests.vllm.engine import BLOCK, Served, engine, greedy, metric

LONG: dict[str, Any] = {"max_model_len": 4096, "max_num_batched_tokens": 64, "max_num_seqs": 4}


def _manager(llm: Any) -> Any:
    return _scheduler(llm).kv_cache_manager


def _scheduler(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


def _capacity(served: Served) -> int:
    with engine(served.repo, **LONG) as llm:
        return int(llm.llm_engine.vllm_config.cache_config.kv_cache_size_tokens)


def test_reported_capacity(zoo: Zoo) -> None:
    full = _capacity(Served(zoo, window=None, keep_first=0, full_layers=None, fa_decode=False))
    assert _capacity(Served(zoo, fa_decode=False)) > 1.8 * full
    assert _capacity(Served(zoo)) == full


def test_admission_uses_it(zoo: Zoo) -> None:
    """Two requests that would need 4 * 94 blocks run side by side in 240."""
    served = Served(zoo, fa_decode=False)
    prompts = [prompt(3000, seed) for seed in (1, 2)]
    with engine(served.repo, num_gpu_blocks_override=240, **LONG) as llm:
        served.check(greedy(llm, prompts, 8))
        assert metric(llm, "num_preemptions") == 0


def test_only_sinks_and_window_are_kept(zoo: Zoo) -> None:
    served = Served(zoo, fa_decode=False, full_layers=())
    with engine(served.repo, **LONG) as llm:
        held = _most_blocks_held(llm, prompt(1000), 8)
    # 5 sinks, a window of 48 that begins anywhere in a block, and what a step or two computes.
    assert held <= 1 + (47 // BLOCK + 2) + 2 * 64 // BLOCK


def _most_blocks_held(llm: Any, ids: list[int], new: int) -> int:
    from vllm import SamplingParams

    pool, most = _manager(llm).block_pool, 0
    llm.llm_engine.add_request("one", {"prompt_token_ids": ids}, SamplingParams(max_tokens=new, ignore_eos=True))
    before = pool.get_num_free_blocks()
    while llm.llm_engine.has_unfinished_requests():
        llm.llm_engine.step()
        most = max(most, before - pool.get_num_free_blocks())
    return most


@pytest.mark.parametrize(
    "recipe", [{}, {"full_layers": (3,), "fa_decode_layers": (0, 2)}], ids=["one kind", "two kinds"]
)
@pytest.mark.parametrize("length, steps", [(130, 40), (158, 2), (160, 1)])
def test_a_resumed_request_looks_for_no_others_blocks(
    zoo: Zoo, recipe: dict[str, Any], length: int, steps: int
) -> None:
    """A prompt that holds what the request generated was computed windowed: the request must not find it."""
    from vllm import SamplingParams

    served = Served(zoo, **recipe)
    with engine(served.repo) as llm:
        (answer,) = greedy(llm, [prompt(length)], 64)
        new = list(answer.outputs[0].token_ids)
        greedy(llm, [prompt(length) + new], 1)
        settings = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=0)
        llm.llm_engine.add_request("again", {"prompt_token_ids": prompt(length)}, settings)
        for _ in range(steps):
            llm.llm_engine.step()
        (running,) = _scheduler(llm).running
        _preempt(llm)
        found = _scheduler(llm).kv_cache_manager.get_computed_blocks(running)[1]
        # Its own prompt it may find, but only while nothing that it generated has been read.
        expected = length if steps == 1 else 0
        assert found == expected, f"{found} tokens of a prompt of {length} and {running.num_output_tokens} more"
        outputs = []
        while llm.llm_engine.has_unfinished_requests():
            outputs += [output for output in llm.llm_engine.step() if output.finished]
        served.check(outputs)
        assert metric(llm, "num_preemptions") == 1


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}, {"fa_tail": 20}], ids=str)
def test_hits_are_counted(zoo: Zoo, recipe: dict[str, Any]) -> None:
    """vLLM counts them once it has made room for the prompt, here for all of it at once."""
    served = Served(zoo, **recipe)
    with engine(served.repo, max_num_batched_tokens=512) as llm:
        greedy(llm, [prompt(130)], 8)
        (answer,) = greedy(llm, [prompt(130)], 8)
        assert answer.num_cached_tokens >= 130 - 20 - BLOCK
        assert metric(llm, "prefix_cache_hits") == answer.num_cached_tokens
        assert metric(llm, "prefix_cache_queries") == 260


def test_hashes_finer_than_blocks(zoo: Zoo) -> None:
    """Both kinds of layers find the prompt's blocks, and none of its dense tail."""
    served = Served(zoo, full_layers=(3,), fa_decode_layers=(0, 2), fa_tail=20)
    with engine(served.repo, prefix_match_unit=8) as llm:
        greedy(llm, [prompt(401)], 4)
        outputs = greedy(llm, [prompt(401)], 4)
        served.check(outputs)
        assert 401 - 20 - 2 * BLOCK < outputs[0].num_cached_tokens <= 401 - 20


@pytest.mark.parametrize("unit", [32, 8])
def test_a_hit_without_a_sink_ends_before_it(unit: int) -> None:
    """Where sinks are more than the window, the blocks before it are needed too. `unit`: tokens of a hash."""
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_utils import BlockHash, make_block_hash_with_group_id

    from swaa_convert.vllm.kv_cache import SinkWindowManager, SinkWindowSpec

    sizes = {"block_size": 32, "num_kv_heads": 1, "head_size": 32, "dtype": torch.float32}
    spec = SinkWindowSpec(**sizes, sliding_window=48, keep_first=150)
    pool = BlockPool(num_gpu_blocks=50, enable_caching=True, hash_block_size=unit)
    hashes = [BlockHash(bytes([number]) * 32) for number in range(12 * 32 // unit)]
    blocks = pool.get_new_blocks(12)
    for key, block in zip(hashes[32 // unit - 1 :: 32 // unit], blocks, strict=True):
        block._block_hash = make_block_hash_with_group_id(key, 0)
        pool.cached_block_hash_to_block.insert(block._block_hash, block)

    def hit() -> tuple[list[bool], int]:
        given = {"kv_cache_group_ids": [0], "block_pool": pool, "kv_cache_spec": spec}
        (found,), length = SinkWindowManager.find_longest_cache_hit(
            hashes, 12 * 32, **given, drop_eagle_block=False, alignment_tokens=32
        )
        return [not block.is_null for block in found], length

    assert hit() == ([True] * 5 + [False] * 5 + [True] * 2, 12 * 32)
    pool.cached_block_hash_to_block.pop(blocks[4].block_hash, blocks[4].block_id)
    assert hit() == ([True] * 4, 4 * 32)


def test_a_session_publishes_only_its_first_prompt(zoo: Zoo) -> None:
    """Streamed inputs make prompt of what was generated; its KV stays dense, and is nobody else's."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    served = Served(zoo)
    with engine(served.repo) as llm:
        core, inputs = llm.llm_engine.engine_core, llm.llm_engine.input_processor

        def turn(ids: list[int], new: int, more: bool = True) -> list[int]:
            settings = SamplingParams(
                temperature=0, max_tokens=new, ignore_eos=True, output_kind=RequestOutputKind.DELTA
            )
            prompt_ids = {"prompt_token_ids": ids}
            tasks = core.get_supported_tasks()
            core.add_request(
                inputs.process_inputs("session", prompt_ids, settings, supported_tasks=tasks, resumable=more)
            )
            tokens: list[int] = []
            # The last turn only ends the session.
            for _ in range(new + 5):
                tokens += [token for output in core.get_output().outputs for token in output.new_token_ids]
            return tokens

        answer = turn(prompt(130, 1), 100)
        turn(prompt(30, 7), 4)
        turn([0], 1, more=False)
        history = prompt(130, 1) + answer[:-1] + prompt(30, 7)
        outputs = greedy(llm, [history], 4)
        assert outputs[0].num_cached_tokens == 128
        served.check(outputs)


def _preempt(llm: Any) -> None:
    """What the scheduler does when blocks run out."""
    import time

    scheduler = _scheduler(llm)
    scheduler._preempt_request(scheduler.running.pop(), time.monotonic())
