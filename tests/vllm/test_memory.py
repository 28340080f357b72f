"""Windowed layers without FA decode release their blocks; generated blocks are never reused wrongly."""

from typing import Any

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


def test_a_resumed_request_looks_for_no_others_blocks(zoo: Zoo) -> None:
    """A prompt that holds what the request generated was computed windowed: the request must not find it."""
    from vllm import SamplingParams

    served = Served(zoo)
    with engine(served.repo) as llm:
        (answer,) = greedy(llm, [prompt(130)], 64)
        new = list(answer.outputs[0].token_ids)
        greedy(llm, [prompt(130) + new], 1)
        settings = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=0)
        llm.llm_engine.add_request("again", {"prompt_token_ids": prompt(130)}, settings)
        for _ in range(40):
            llm.llm_engine.step()
        _preempt(llm)
        outputs = []
        while llm.llm_engine.has_unfinished_requests():
            outputs += [output for output in llm.llm_engine.step() if output.finished]
        served.check(outputs)
        assert metric(llm, "num_preemptions") == 1


def _preempt(llm: Any) -> None:
    """What the scheduler does when blocks run out."""
    import time

    scheduler = _scheduler(llm)
    scheduler._preempt_request(scheduler.running.pop(), time.monotonic())
