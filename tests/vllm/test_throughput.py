"""examples/serve_throughput.py on a CPU, with a model of another shape."""

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import serve_throughput  # noqa: E402

TINY = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
ENGINE = {"enforce_eager": True, "max_num_batched_tokens": 64, "block_size": 32, "dtype": "float32"}


def _options(**more: Any) -> argparse.Namespace:
    made = {"requests": 2, "prompt": 200, "new": 4, "window": 64, "keep_first": 10, "layers": 4, "engine": ENGINE}
    return argparse.Namespace(**made, **more)


def test_a_configuration_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    monkeypatch.setattr(serve_throughput, "QWEN3_4B", {**serve_throughput.QWEN3_4B, **TINY})
    serve_throughput.write_repo(tmp_path, "no FA decode, half full", _options())
    found = serve_throughput.measure(_options(repo=str(tmp_path)))
    assert found["tokens_per_second"] * found["seconds"] == pytest.approx(2 * (200 + 4))
    assert found["capacity"] > 0
    gc.collect()
    cleanup_dist_env_and_memory()


def test_a_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [serve_throughput.SOURCE, *list(serve_throughput.CONFIGURATIONS)[:2]]
    found = {"tokens_per_second": 100.0, "seconds": 1.0, "capacity": 5}
    monkeypatch.setattr(serve_throughput, "run", lambda name, options: None if name == names[1] else found)
    assert serve_throughput.compare(names, _options()) == [names[1]]
    assert f"| {names[2]} | 100 | 5 | 1.00x | 1.45x |" in capsys.readouterr().out
