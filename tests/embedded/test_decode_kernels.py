"""When decoding does without cuDNN, which makes a plan for each number of keys, and that nothing stays switched off."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modeling import swaa_attention
from modeling.swaa_attention import PADDED_KEYS, decode_kernels, without_cudnn
from modeling.swaa_mask import Tokens
from modeling.swaa_state import SwaaState
from tests.support.embed import Zoo, greedy, load, prompt

enabled = torch.backends.cuda.cudnn_sdp_enabled


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """cuDNN is on before each test, flash-attention is there, and whatever a test left is undone."""
    flash = torch.backends.cuda.flash_sdp_enabled()
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cuda.enable_flash_sdp(flash)


def _decoding(new: int = 1, is_cuda: bool = True) -> SwaaState:
    """A step on a GPU, of which there may be none here."""
    tokens: Any = SimpleNamespace(is_cuda=is_cuda, shape=(1, new))
    queries: Any = SimpleNamespace(position=tokens)
    return SwaaState("sdpa", queries, Tokens(torch.zeros(1, 1)), 900, 901, True, None, None, aligned=True)


def _switches_off(state: SwaaState) -> bool:
    with decode_kernels(state):
        return not enabled()


def test_a_token_on_a_gpu_does_without() -> None:
    assert _switches_off(_decoding()) and enabled()
    assert _switches_off(replace(_decoding(), aligned=False, length=PADDED_KEYS)) and enabled()


@pytest.mark.parametrize(
    "state",
    [
        _decoding(new=2),
        _decoding(is_cuda=False),
        replace(_decoding(), backend="flex_attention"),
        replace(_decoding(), length=None),
        replace(
            _decoding(),
            cache=SimpleNamespace(is_compileable=True, max_cache_len=1000, get_max_cache_shape=lambda: 1000),
        ),
        replace(_decoding(), user_mask=torch.ones(1, 1, 1, 901)),
        replace(_decoding(), aligned=False, length=PADDED_KEYS + 1),
    ],
    ids=[
        "several tokens",
        "CPU",
        "another backend",
        "graph over a static cache",
        "static cache",
        "own mask",
        "long padded rows",
    ],
)
def test_everything_else_runs_what_pytorch_prefers(state: SwaaState) -> None:
    assert not _switches_off(state) and enabled()


def test_a_graph_keeps_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not _switches_off(_decoding())


def test_whom_flash_attention_is_forbidden_keeps_cudnn() -> None:
    torch.backends.cuda.enable_flash_sdp(False)
    assert not _switches_off(_decoding())


def test_where_flash_attention_is_not_built_cudnn_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: False)
    assert not _switches_off(_decoding())


def test_it_stays_off_for_whom_it_was_off() -> None:
    torch.backends.cuda.enable_cudnn_sdp(False)
    assert _switches_off(_decoding())
    assert not enabled()


def test_an_error_switches_it_on_again() -> None:
    with pytest.raises(RuntimeError, match="broken"), without_cudnn():
        raise RuntimeError("broken")
    assert enabled()


def test_many_threads_switch_it_on_again() -> None:
    def decode(_: int) -> bool:
        with without_cudnn(), without_cudnn():
            return not enabled()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decode, range(2000)))
    assert enabled()


def test_two_repos_that_overlap_switch_it_on_again() -> None:
    """Each has its own copy of the code, and so its own count: whoever leaves last."""
    source = Path(swaa_attention.__file__).read_text()
    first, second = ({"__name__": f"modeling.copy_{n}", "__package__": "modeling"} for n in "ab")
    for copy in (first, second):
        exec(compile(source, "copy", "exec"), copy)
    for one, other in ((first, second), (second, first)):
        outer, inner = one["without_cudnn"](), other["without_cudnn"]()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        assert enabled()


@pytest.mark.parametrize("static", [False, True])
def test_the_model_decodes_under_it(zoo: Zoo, monkeypatch: pytest.MonkeyPatch, static: bool) -> None:
    """Its whole forward pass, full layers included, and nothing but that; over a static cache never."""
    model, seen = load(zoo.repo()), []  # type: ignore[var-annotated]
    code = sys.modules[type(model).__module__.rpartition(".")[0] + ".swaa_model"]

    def on_a_gpu(state: SwaaState) -> Any:
        new = state.queries.position.shape[1]
        return decode_kernels(replace(state, queries=_decoding(new).queries))

    monkeypatch.setattr(code, "decode_kernels", on_a_gpu)
    for layer in model.model.layers:
        layer.register_forward_pre_hook(lambda module, args: seen.append((args[0].shape[1], enabled())))
    options = {"cache_implementation": "static", "disable_compile": True} if static else {}
    greedy(model, prompt(40), 4, **options)
    layers = len(model.model.layers)
    assert seen == [(40, True)] * layers + [(1, static)] * layers * 3
    assert enabled()
