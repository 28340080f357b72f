"""The embedded model on CUDA, against its eager reference in float32 on the CPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache

from tests.support.embed import CACHE, FAMILIES, Zoo, greedy, load, logits, one, pad_left, prompt
from tests.support.flash_attn_package import write_package

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("exact_products"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]
needs_flash = pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None or importlib.util.find_spec("flash_attn.cute") is None,
    reason="needs flash-attn-4",
)
BACKENDS = ("eager", "sdpa", "flex_attention")
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {"window": 70, "keep_first": 5},
    "every layer windowed": {"window": 70, "keep_first": 5, "full_layers": ()},
    "no FA decode": {"window": 70, "keep_first": 5, "fa_decode": False},
    "no sinks": {"window": 128, "keep_first": 0, "full_layers": ()},
    "sinks past the window": {"window": 33, "keep_first": 200, "full_layers": ()},
    "dense tail": {"window": 70, "keep_first": 5, "fa_tail": 9},
}
backends = pytest.mark.parametrize("backend", BACKENDS)
recipes = pytest.mark.parametrize("recipe", RECIPES)


def _cuda(zoo: Zoo, backend: str, family: str = "qwen3", dtype: torch.dtype = torch.float32, **recipe: Any) -> Any:
    return load(zoo.repo(family, **recipe), backend, dtype=dtype).to("cuda")


def _error(actual: Tensor, expected: Tensor) -> float:
    """Relative to the norm of what is expected."""
    return float((actual.float().cpu() - expected).norm() / expected.norm())


def _to_cuda(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cuda") for name, tensor in batch.items()}


@pytest.mark.parametrize("length", [150, 256, 411])
@recipes
@backends
def test_recipes_in_float32(zoo: Zoo, backend: str, recipe: str, length: int) -> None:
    ids = torch.tensor([prompt(length, 1), prompt(length, 2)])
    expected = logits(zoo.model(backend="eager", **RECIPES[recipe]), ids, dense_from=length - 40)
    actual = logits(_cuda(zoo, backend, **RECIPES[recipe]), ids.to("cuda"), dense_from=length - 40)
    assert _error(actual, expected) < 2e-5


@pytest.mark.parametrize("family", FAMILIES)
@backends
def test_families_generate_the_same_tokens(zoo: Zoo, backend: str, family: str) -> None:
    recipe = RECIPES["interleaved"]
    batch = pad_left([prompt(300), prompt(20), prompt(130)])
    expected = greedy(zoo.model(family, "eager", **recipe), batch, 16)
    assert greedy(_cuda(zoo, backend, family, **recipe), _to_cuda(batch), 16) == expected


@pytest.mark.parametrize(
    "options", [{}, {"cache_implementation": "static"}, {"prefill_chunk_size": 37}, {"num_beams": 3}]
)
@recipes
def test_generation(zoo: Zoo, recipe: str, options: dict[str, Any]) -> None:
    ids = prompt(200)
    options = {"disable_compile": True, **options}
    expected = greedy(zoo.model(backend="eager", **RECIPES[recipe]), ids, 16, num_beams=options.get("num_beams", 1))
    assert greedy(_cuda(zoo, "sdpa", **RECIPES[recipe]), {"input_ids": one(ids).to("cuda")}, 16, **options) == expected


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode"])
def test_a_compiled_decode_step_over_a_static_cache(zoo: Zoo, recipe: str) -> None:
    ids = prompt(200)
    expected = greedy(zoo.model(backend="eager", **RECIPES[recipe]), ids, 12)
    model = _cuda(zoo, "sdpa", **RECIPES[recipe])
    assert greedy(model, {"input_ids": one(ids).to("cuda")}, 12, cache_implementation="static") == expected


@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode"])
def test_compiled_decode_steps_of_a_padded_batch(zoo: Zoo, recipe: str) -> None:
    batch = pad_left([prompt(200), prompt(20), prompt(130)])
    expected = greedy(zoo.model(backend="eager", **RECIPES[recipe]), batch, 12)
    model = _cuda(zoo, "sdpa", **RECIPES[recipe])
    assert greedy(model, _to_cuda(batch), 12, cache_implementation="static") == expected


@pytest.mark.parametrize("batch", [[prompt(200)], [prompt(200), prompt(150)]], ids=["plain", "left-padded"])
@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode"])
def test_decoding_plans_nothing_with_cudnn(zoo: Zoo, recipe: str, batch: list[list[int]]) -> None:
    """Each token has another number of keys, and for each of those cuDNN would make a plan."""
    model, cache = _cuda(zoo, "sdpa", dtype=torch.bfloat16, **RECIPES[recipe]), DynamicCache()
    inputs = _to_cuda(pad_left(batch))
    with torch.no_grad():
        model(**inputs, **{CACHE: cache})
        mask = inputs["attention_mask"].new_ones(len(batch), 201)
        mask[:, :200] = inputs["attention_mask"]
        with profile(activities=[ProfilerActivity.CUDA]) as watched:
            model(mask[:, :1], attention_mask=mask, dense_from=0, **{CACHE: cache})
            torch.cuda.synchronize()
    kernels = [event.key.lower() for event in watched.key_averages()]
    assert any("fmha" in name or "flash" in name for name in kernels)
    assert not any("cudnn_generated" in name for name in kernels)
    assert torch.backends.cuda.cudnn_sdp_enabled()


@backends
def test_left_padded_and_packed_forward_passes(zoo: Zoo, backend: str) -> None:
    recipe, batch = RECIPES["every layer windowed"], pad_left([prompt(300), prompt(150)])
    real = batch["attention_mask"].bool()
    model, reference = _cuda(zoo, backend, **recipe), zoo.model(backend="eager", **recipe)
    assert _error(logits(model, **_to_cuda(batch))[real.to("cuda")], logits(reference, **batch)[real]) < 2e-5
    packed = torch.cat([torch.arange(200), torch.arange(50), torch.arange(150)])[None]
    ids = one(prompt(400))
    actual = logits(model, ids.to("cuda"), position_ids=packed.to("cuda"))
    assert _error(actual, logits(reference, ids, position_ids=packed)) < 2e-5


@backends
def test_bfloat16_is_as_close_as_the_stock_kernel(zoo: Zoo, backend: str) -> None:
    """The windowed layers add no error of their own: at most 1.5 times that of a window that holds everything."""
    ids = torch.tensor([prompt(400, 3)])
    errors = []
    for recipe in (RECIPES["every layer windowed"], {"window": 1000, "full_layers": ()}):
        expected = logits(zoo.model(backend="eager", **recipe), ids)
        errors.append(_error(logits(_cuda(zoo, backend, dtype=torch.bfloat16, **recipe), ids.to("cuda")), expected))
    assert errors[0] < 1.5 * errors[1]


@backends
def test_gradients(zoo: Zoo, backend: str) -> None:
    recipe, ids = RECIPES["interleaved"], torch.tensor([prompt(300, 4), prompt(300, 5)])
    labels = torch.where(torch.arange(300) < 250, -100, ids)
    expected = _gradients(load(zoo.repo(**recipe), "eager"), ids, labels)
    actual = _gradients(_cuda(zoo, backend, **recipe), ids.to("cuda"), labels.to("cuda"))
    for name, gradient in expected.items():
        assert _error(actual[name], gradient) < 1e-4, name


def _gradients(model: Any, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
    model(ids, labels=labels).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "proj" in name}


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "no FA decode"])
def test_a_compiled_prefill_agrees(zoo: Zoo, recipe: str) -> None:
    model = _cuda(zoo, "sdpa", **RECIPES[recipe])
    torch._dynamo.reset()
    compiled = torch.compile(model)
    for length in (300, 411):
        ids = torch.tensor([prompt(length, 1), prompt(length, 2)]).to("cuda")
        expected = logits(model, ids, use_cache=False, dense_from=length - 40)
        assert _error(logits(compiled, ids, use_cache=False, dense_from=length - 40), expected.cpu()) < 2e-5


def _errors(tmp_path: Path, backend: str) -> dict[str, list[float]]:
    """Of a flash-attention backend and of stock sdpa, case by case, in a process that finds the library."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([str(tmp_path), root, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tests.support.flash_worker", backend]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_flash_attention_2(tmp_path: Path) -> None:
    write_package(tmp_path)
    for name, (error, stock) in _errors(tmp_path, "flash_attention_2").items():
        assert error <= 1.5 * stock, f"{name}: {error}, stock {stock}"


@needs_flash
def test_two_repos_go_through_flash_attn_4(zoo: Zoo) -> None:
    """The compiler must not take the second one's window for a variable: flash-attn-4 has none."""
    ids = torch.tensor([prompt(400, 3)])
    for window in (70, 90):
        recipe: dict[str, Any] = {"config": {"head_dim": 64}, "window": window, "full_layers": ()}
        model = _cuda(zoo, "sdpa", dtype=torch.bfloat16, **recipe)
        logits(model, ids.to("cuda"))
        flex = sys.modules[type(model).__module__.rpartition(".")[0] + ".swaa_flex"]
        assert any(kind.flash for kind in flex._compiled) and not flex._without_flash


@needs_flash
def test_flash_attention_4(tmp_path: Path) -> None:
    for name, (error, stock) in _errors(tmp_path, "flash_attention_4").items():
        assert error <= 1.5 * stock, f"{name}: {error}, stock {stock}"
