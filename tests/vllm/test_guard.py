"""Without the plugin, and on vLLM's backend for transformers' own modules, vLLM refuses to start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.embed import Zoo
from tests.vllm.engine import SHAPE

SCRIPT = """
import sys
from vllm import LLM
LLM(sys.argv[1], dtype="float32", max_model_len=256, enforce_eager=True, **eval(sys.argv[2]))
"""


def _start(repo: Path, plugins: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(repo), repr(options)],
        env={**os.environ, "VLLM_PLUGINS": plugins},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("plugins, options", [("none", {}), ("swaa", {"model_impl": "transformers"})])
def test_refused_with_the_repos_own_code(zoo: Zoo, plugins: str, options: dict[str, str]) -> None:
    done = _start(zoo.repo(config=SHAPE), plugins, trust_remote_code=True, **options)
    assert done.returncode != 0
    assert (
        "attn_implementation='vllm' and will not serve full attention in its place: install swaa-convert" in done.stderr
    )


def test_refused_without_any_code(zoo: Zoo) -> None:
    done = _start(zoo.repo(config=SHAPE), "none")
    assert done.returncode != 0 and "contains custom code" in done.stderr


@pytest.mark.parametrize(
    "options, line",
    [
        ({"kv_cache_dtype": "fp8"}, "SWAA can't be served with kv_cache_dtype='fp8'"),
        (
            {"runner": "pooling", "hf_overrides": {"architectures": ["Qwen3ForSequenceClassification"]}},
            "SWAA can't be served as Qwen3ForSequenceClassification, whose attention is full",
        ),
        ({"kv_transfer_config": {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}}, "a KV connector"),
    ],
)
def test_options_that_are_refused(zoo: Zoo, options: dict[str, object], line: str) -> None:
    done = _start(zoo.repo(config=SHAPE), "swaa", **options)
    assert done.returncode != 0 and line in done.stderr
