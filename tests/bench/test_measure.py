"""What a run records, what a cell holds, and what happens when memory runs out."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swaa_convert.bench import compare as comparing
from swaa_convert.bench.compare import Cell, compare, steps
from swaa_convert.bench.measure import Clock, Run, generate, measure, random_prompts
from swaa_convert.bench.memory import out_of_memory, stored_bytes, tensors_in
from swaa_convert.bench.models import Contestant
from swaa_convert.bench.report import legend
from swaa_convert.bench.stats import Spread, figures
from swaa_convert.errors import SwaaError
from tests.bench.conftest import Make, settings


@pytest.fixture
def rivals(qwen3_source: Any, make: Make) -> list[Contestant]:
    return make(qwen3_source)


def test_every_token_has_its_time_and_nothing_stops_early(rivals: list[Contestant]) -> None:
    ids = random_prompts(264, 1, 24, "cpu")
    for contestant in rivals:
        # Whatever the model says ends the text.
        contestant.model.config.eos_token_id = list(range(264))
        run = measure(contestant.model, ids, 5)
        assert len(run.later) == 4 and min(run.first, *run.later) > 0
        assert run.peak_bytes is None


def test_tokens_are_those_of_greedy_generation(rivals: list[Contestant]) -> None:
    ids = random_prompts(264, 2, 24, "cpu")
    cache = generate(rivals[0].model, ids, 3, Clock(ids.device))
    assert cache.get_seq_length() == 26 and ids.shape == (2, 24)
    assert torch.equal(ids, random_prompts(264, 2, 24, "cpu"))


def test_kv_memory_is_exact_and_shrinks_without_fa_decode(rivals: list[Contestant]) -> None:
    full, dense, lean = (measure(one.model, random_prompts(264, 1, 40, "cpu"), 3).kv_bytes for one in rivals)
    per_key = 2 * 2 * 32 * 4
    # Since the first generated token, the 41st, there is room for 32 more.
    assert full == 4 * 42 * per_key and dense == 4 * (41 + 32) * per_key
    # Two windowed layers keep two sinks and seven keys, with their positions.
    assert 2 * (73 + 9) * per_key <= lean < 2 * (73 + 9) * per_key + 2 * 1024


def test_a_static_cache_is_whole_in_every_layer(rivals: list[Contestant]) -> None:
    ids = random_prompts(264, 1, 24, "cpu")
    sizes = {measure(one.model, ids, 3, "static").kv_bytes for one in rivals}
    assert len(sizes) == 1 and sizes.pop() >= 4 * 26 * 2 * 2 * 32 * 4


def test_a_view_counts_as_the_buffer_that_it_keeps() -> None:
    buffer = torch.zeros(100)
    layer = SimpleNamespace(
        keys=buffer[:1], values=buffer[1:2], rule=SimpleNamespace(window=8), model=torch.nn.Linear(9, 9)
    )
    assert stored_bytes(tensors_in(SimpleNamespace(layers=[layer, layer], more={"x": (torch.zeros(1),)}))) == 404


def test_variants_take_turns_after_a_warm_up(rivals: list[Contestant], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, int]] = []

    def fake(model: Any, ids: Any, new_tokens: int, cache: str) -> Run:
        assert cache == "dynamic"
        calls.append((model, new_tokens))
        return Run(1.0, (0.1,) * (new_tokens - 1), 10, None)

    monkeypatch.setattr(comparing, "measure", fake)
    made = settings(new_tokens=20)
    cells = compare(rivals, 24, made, lambda: None)
    models = [one.model for one in rivals]
    assert calls == [(model, tokens) for tokens in (8, 20, 20) for model in models]
    assert [len(cell.runs) for cell in cells] == [2, 2, 2] and len(calls) == steps(rivals, made)


@pytest.mark.parametrize("failing", [1, 4, 7])
def test_out_of_memory_stays_in_its_cell(
    failing: int, rivals: list[Contestant], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def fake(*_: Any) -> Run:
        nonlocal calls
        calls += 1
        # The first variant fails for good.
        if calls == failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Run(1.0, (), 10, 5)

    monkeypatch.setattr(comparing, "measure", fake)
    first, *others = compare(rivals, 24, settings(), lambda: None)
    # One warm-up and two runs; what had finished counts.
    assert first.out_of_memory and len(first.runs) == (failing == 7)
    assert (figures(first, 1) is None) == (failing < 7)
    assert [len(cell.runs) for cell in others] == [2, 2]
    assert "expandable_segments" in legend([first, *others]) and "expandable_segments" not in legend(others)


def test_another_error_is_one_line_that_says_where(rivals: list[Contestant], monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*_: Any) -> Run:
        raise ValueError("no kernel\nfor this")

    monkeypatch.setattr(comparing, "measure", fake)
    with pytest.raises(SwaaError) as error:
        compare(rivals, 24, settings(), lambda: None)
    assert error.value.message == "full attention, prompt of 24 tokens: ValueError: no kernel"


def test_what_counts_as_out_of_memory() -> None:
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    wrapped = RuntimeError("kernel failed")
    wrapped.__cause__ = torch.OutOfMemoryError("x")
    assert out_of_memory(wrapped)
    said = (
        "Triton Error [CUDA]: out of memory",
        "MPS backend out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
    )
    assert all(out_of_memory(RuntimeError(words)) for words in said)
    assert not out_of_memory(RuntimeError("out of resource: shared memory"))


def test_figures() -> None:
    runs = [
        Run(first, (step, 9.0, step), 100, peak) for first, step, peak in ((2.0, 0.1, 5), (4.0, 0.2, 7), (3.0, 0.3, 6))
    ]
    found = figures(Cell(300, "x", runs), batch=2)
    assert found is not None and found.first == Spread(3.0, 2.0, 4.0) and found.token == Spread(0.2, 0.1, 0.3)
    assert (found.prompt_rate, found.token_rate) == (200, 10)
    assert (found.kv_bytes, found.peak_bytes) == (100, 7)
    assert found.first.share == pytest.approx(1 / 3)


def test_a_single_token_has_no_time_per_token() -> None:
    found = figures(Cell(300, "x", [Run(2.0, (), 100, None)]), batch=1)
    assert found is not None and found.token is found.token_rate is found.peak_bytes is None
