"""The OpenAI server, in processes of its own, under clients that stream in parallel."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.embed import Zoo, prompt
from tests.vllm.engine import Served, assert_greedy, assert_log_probs, mixed

# The command `vllm serve` looks its version up under a name that CPU builds don't have.
MODULE = "vllm.entrypoints.openai.api_server"
OPTIONS = "--dtype float32 --max-model-len 512 --block-size 32 --enforce-eager --num-gpu-blocks-override 70".split()


@contextmanager
def server(repo: Path, *options: str) -> Iterator[str]:
    """The address of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", MODULE, "--model", str(repo), "--port", str(port), "--host", "127.0.0.1", *options]
    process = subprocess.Popen(command, env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"})
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(process, address)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server stopped"
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise TimeoutError("the server does not answer")


def _stream(address: str, model: str, ids: list[int]) -> list[dict[str, Any]]:
    """The chunks of one streamed completion."""
    asked = {
        "model": model,
        "prompt": ids,
        "max_tokens": 24,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/completions", json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        lines = [line.decode().removeprefix("data: ").strip() for line in answer if line.strip()]
    return [json.loads(line)["choices"][0] for line in lines if line != "[DONE]"]


def _check(served: Served, address: str, prompts: list[list[int]]) -> None:
    """Eight clients at a time; each stream's tokens and log-probabilities are the reference's."""
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda ids: _stream(address, str(served.repo), ids), prompts))
    for ids, chunks in zip(prompts, answers, strict=True):
        new = [token for chunk in chunks for token in chunk["token_ids"]]
        given = [value for chunk in chunks for value in chunk["logprobs"]["token_logprobs"]]
        expected = served.log_probs(ids, new)
        assert len(new) == 24
        assert_greedy(expected, new)
        assert_log_probs(given, expected, new)


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}], ids=["FA decode", "no FA decode"])
def test_parallel_streams(zoo: Zoo, recipe: dict[str, Any]) -> None:
    served = Served(zoo, **recipe)
    with server(served.repo, *OPTIONS) as address:
        _check(served, address, mixed(11) + mixed(12))


def test_tensor_parallelism(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with half the heads each, and layers that differ in what they keep."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    served = Served(zoo, full_layers=(3,), fa_decode_layers=(0, 2))
    with server(served.repo, *OPTIONS, "--tensor-parallel-size", "2") as address:
        _check(served, address, mixed(13))


@pytest.mark.parametrize(
    "recipe", [{}, {"fa_decode": False}, {"fa_tail": 7, "full_layers": ()}], ids=["FA decode", "no FA decode", "tail"]
)
def test_ngram_drafts(zoo: Zoo, recipe: dict[str, Any]) -> None:
    """Prompts that repeat themselves, so that there are drafts, which are wrong more often than not.

    Here rather than offline, since vLLM 0.32 can't start a second engine in a process that has drafted.
    """
    served = Served(zoo, **recipe)
    drafts = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    prompts = [prompt(20 + seed, seed) * times for seed, times in enumerate((2, 3, 5, 9, 12, 16))]
    with server(served.repo, *OPTIONS, "--speculative-config", json.dumps(drafts)) as address:
        _check(served, address, prompts * 2)
        metrics = urllib.request.urlopen(f"{address}/metrics", timeout=60).read().decode()
    assert float(re.findall(r"^vllm:spec_decode_num_draft_tokens_total\{.*\} (.*)$", metrics, re.M)[0]) > 0
