"""Memory that runs out late: what had finished is shown, and said to be less than was asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swaa_convert.bench import compare as comparing
from swaa_convert.bench import profile as profiling
from swaa_convert.bench.compare import Cell
from swaa_convert.bench.measure import Run
from swaa_convert.bench.profile import profiled
from swaa_convert.bench.report import legend
from tests.bench.conftest import RECIPES, Make, settings
from tests.support.command import run

SIZES = ("--lengths", "24,40", "--new-tokens", "2", "--repeats", "3", "--recipes", RECIPES)
Fail = Callable[..., None]


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """A function after which these runs, counted from 0 over all lengths, find no memory; there are 12 at a length."""

    def patch(*failing: int) -> None:
        calls = iter(range(99))

        def fake(*_: Any) -> Run:
            if next(calls) in failing:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return Run(1.0, (0.5,), 10, None)

        monkeypatch.setattr(comparing, "measure", fake)

    return patch


def rows(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name},")) and ":" not in line]


def test_finished_runs_are_shown_and_marked(qwen3_source: Path, tmp_path: Path, fail_at: Fail) -> None:
    # The second variant's last run at the first length.
    fail_at(3 * 3 + 1)
    file = tmp_path / "bench.json"
    result = run("bench", qwen3_source, *SIZES, "--json", file, "--png", tmp_path / "bench.png")
    assert result.exit_code == 0, result.output
    short, whole = rows(result.stdout, "dense")
    assert short.split()[:8] == "dense, out of memory in run 3 1.00".split() and short.endswith("n/a")
    assert whole.split()[:2] == ["dense", "1.00"]
    assert "expandable_segments" in result.stdout and "the runs that finished before" in result.stdout
    cells = {(one["variant"], one["length"]): one for one in json.loads(file.read_text())["results"]}
    late = cells["dense", 24]
    assert late["out_of_memory"] and len(late["runs"]) == 2 and late["figures"]["first"]["median"] == 1
    assert [len(one["runs"]) for one in cells.values()] == [3, 2, 3, 3, 3, 3]


def test_memory_that_never_sufficed_looks_as_ever(qwen3_source: Path, tmp_path: Path, fail_at: Fail) -> None:
    # Every warm-up at both lengths: nothing can be drawn.
    fail_at(0, 1, 2, 3, 4, 5)
    file = tmp_path / "bench.json"
    result = run("bench", qwen3_source, *SIZES, "--json", file, "--png", tmp_path / "bench.png")
    assert result.exit_code == 0 and rows(result.stdout, "dense")[0].split() == ["dense", "out", "of", "memory"]
    assert all(one["figures"] is None for one in json.loads(file.read_text())["results"])
    assert (tmp_path / "bench.png").is_file() and "the runs that finished before" not in result.stdout


def test_prompts_too_large_for_memory(qwen3_source: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals, advanced = make(qwen3_source), list[None]()
    cells = comparing.compare(rivals, 2**28, settings(batch=2**28), lambda: advanced.append(None))
    assert all(cell.out_of_memory and not cell.runs for cell in cells)
    assert len(advanced) == comparing.steps(rivals, settings())

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(profiling, "random_prompts", fail)
    assert profiled(rivals[0], Cell(24, "x", [Run(1.0, (), 10, None)]), settings()) == []


def test_the_legend_says_what_happened() -> None:
    run_ = Run(1.0, (), 10, None)
    late, never = Cell(24, "x", [run_], out_of_memory=True), Cell(24, "x", out_of_memory=True)
    assert "in run N" in legend([late]) and "in run N" not in legend([never, Cell(24, "y", [run_])])
