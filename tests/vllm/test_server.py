"""The OpenAI server, in processes of its own, under clients that stream in parallel."""

import json
import os
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

from tests.support.embed import Zoo
from tests.vllm.engine import Served, assert_log_probs, mixed

# The command `vllm serve` looks its version up under a name that CPU builds don't have.
MODULE = "vllm.entrypoints.openai.api_server"


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


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}], ids=["FA decode", "no FA decode"])
def test_parallel_streams(zoo: Zoo, recipe: dict[str, Any]) -> None:
    served = Served(zoo, **recipe)
    options = "--dtype float32 --max-model-len 512 --block-size 32 --enforce-eager --num-gpu-blocks-override 70".split()
    prompts = mixed(11) + mixed(12)
    with server(served.repo, *options) as address, ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda ids: _stream(address, str(served.repo), ids), prompts))
    for ids, chunks in zip(prompts, answers, strict=True):
        new = [token for chunk in chunks for token in chunk["token_ids"]]
        given = [value for chunk in chunks for value in chunk["logprobs"]["token_logprobs"]]
        expected = served.log_probs(ids, new)
        assert expected.argmax(dim=-1).tolist() == new and len(new) == 24
        assert_log_probs(given, expected, new)
