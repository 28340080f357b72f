"""FlexAttention, flash-attn-4 and the two passes on CUDA, against the eager reference in float32 on the same device."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from modeling import swaa_flex
from modeling.swaa_blocks import blocked_attention
from modeling.swaa_flash import two_pass_attention
from modeling.swaa_flex import flex_attention
from tests.support.kernels import CASES, Call, Case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("exact_products"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]
needs_flash = pytest.mark.skipif(not swaa_flex._has_flash(), reason="needs flash-attn-4")
LONG = ("padded by whole blocks", "chunk", "packed", "dense tail", "plain", "left-padded")


@pytest.fixture
def triton_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if flash-attn-4 were not installed."""
    monkeypatch.setattr(swaa_flex, "_has_flash", lambda: False)


@pytest.fixture
def flash_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn-4 or an error, never Triton in its place, not even for what an earlier test found it to lack."""
    monkeypatch.setattr(swaa_flex, "_without_flash", set())
    monkeypatch.setattr(swaa_flex.logger, "warning", lambda message: pytest.fail(message))


def _half(case: Case) -> Call:
    return Call(replace(case, dim=max(64, case.dim)), "cuda", torch.bfloat16)


def _dense_error(call: Call) -> float:
    """The error of the stock kernel's dense causal attention over the same states."""
    states = call.query, call.key[:, :, : call.case.new], call.value[:, :, : call.case.new]
    groups = {"is_causal": True, "enable_gqa": True}
    query, key, value = (s.float() for s in states)
    key, value = (s.repeat_interleave(query.shape[1] // s.shape[1], dim=1) for s in (key, value))
    expected = scaled_dot_product_attention(query, key, value, is_causal=True)
    actual = scaled_dot_product_attention(*states, **groups).float()
    return float((actual - expected).norm() / expected.norm())


def _assert_as_good_as_stock(call: Call, actual: Tensor) -> None:
    error = call.error(actual, call.expected())
    assert error < 1e-2 and error < 1.5 * _dense_error(call)


def _random_case(seed: int) -> Case:
    draw = random.Random(seed)
    batch, new = draw.randint(1, 4), draw.randint(200, 2500)
    past = draw.choice([0, 0, draw.randint(1, 1500)])
    kv_heads = draw.choice([1, 2])
    padded = draw.random() < 0.3 and batch > 1
    return Case(
        window=draw.choice([1, 64, 100, 128, 333, 512, 1024]),
        keep_first=draw.choice([0, 1, 100, 1000]),
        new=new,
        past=past,
        batch=batch,
        heads=kv_heads * draw.choice([1, 2, 4, 8]),
        kv_heads=kv_heads,
        dim=(64, 96, 128, 256)[seed % 4],
        padding=[draw.randint(0, past + new - 1) for _ in range(batch)] if padded else (),
        dense_from=past + new - draw.randint(0, 150) if draw.random() < 0.3 else None,
        seed=seed,
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("triton_only")
def test_flex_attention_in_float32(name: str) -> None:
    call = Call(CASES[name], "cuda")
    assert call.error(call.run(flex_attention), call.expected()) < 2e-5


@pytest.mark.parametrize("kernel", [flex_attention, blocked_attention])
@pytest.mark.parametrize("seed", range(24))
@pytest.mark.usefixtures("triton_only")
def test_random_shapes_in_bfloat16(seed: int, kernel: Any) -> None:
    call = Call(_random_case(seed), "cuda", torch.bfloat16)
    _assert_as_good_as_stock(call, call.run(kernel))


@pytest.mark.parametrize("dim", [16, 40, 72, 80, 112, 160, 192, 224])
def test_other_head_dimensions(dim: int) -> None:
    """None is a power of two but the first: Triton pads them; flash-attn-4 doesn't get them."""
    call = Call(Case(dim=dim, new=700, keep_first=100), "cuda", torch.bfloat16)
    _assert_as_good_as_stock(call, call.run(flex_attention))
    _check_gradients(call, flex_attention)


@needs_flash
@pytest.mark.parametrize("seed", [seed for seed in range(16) if seed % 4 != 3])
@pytest.mark.usefixtures("flash_only")
def test_random_shapes_through_flash_attn_4(seed: int) -> None:
    call = Call(_random_case(seed), "cuda", torch.bfloat16)
    _assert_as_good_as_stock(call, call.run(flex_attention))


@needs_flash
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("flash_only")
def test_flash_attn_4(name: str) -> None:
    call = _half(CASES[name])
    _assert_as_good_as_stock(call, call.run(flex_attention))


@needs_flash
def test_what_flash_attn_4_lacks_goes_to_triton() -> None:
    call = Call(Case(dim=256), "cuda", torch.bfloat16)
    _assert_as_good_as_stock(call, call.run(flex_attention))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.usefixtures("flash_library")
def test_random_shapes_in_two_passes(seed: int) -> None:
    case = replace(_random_case(seed), dense_from=None, backend="flash_attention_2")
    call = Call(case, "cuda", torch.bfloat16)
    _assert_as_good_as_stock(call, call.run(two_pass_attention))


def _check_gradients(call: Call, kernel: Any) -> None:
    """Within bfloat16's rounding of the reference in float32: 1%."""
    expected = call.gradients(lambda *states: call.expected(*states))
    actual = call.gradients(lambda *states: call.run(kernel, *states))
    for found, wanted in zip(actual, expected, strict=True):
        assert (found - wanted).norm() < 1e-2 * wanted.norm()


@pytest.mark.parametrize("name", LONG)
@pytest.mark.usefixtures("triton_only")
def test_gradients_of_flex_attention(name: str) -> None:
    _check_gradients(_half(CASES[name]), flex_attention)


def _of_every_size(name: str, dim: int, groups: int, backend: str = "sdpa") -> Call:
    case = replace(CASES[name], dim=dim, heads=2 * groups, kv_heads=2, backend=backend)
    return Call(case, "cuda", torch.bfloat16)


# Dimension 128 has backward tiles of its own on Hopper.
every_size = pytest.mark.parametrize(
    ("name", "dim", "groups"),
    [(name, dim, groups) for name in ("plain", "left-padded") for dim in (96, 128, 256) for groups in (1, 8)],
)


@every_size
@pytest.mark.usefixtures("triton_only")
def test_gradients_of_every_size(name: str, dim: int, groups: int) -> None:
    _check_gradients(_of_every_size(name, dim, groups), flex_attention)


@every_size
@pytest.mark.usefixtures("flash_library")
def test_gradients_of_every_size_in_two_passes(name: str, dim: int, groups: int) -> None:
    _check_gradients(_of_every_size(name, dim, groups, "flash_attention_2"), two_pass_attention)


@needs_flash
@pytest.mark.parametrize("name", LONG)
@pytest.mark.usefixtures("flash_only")
def test_gradients_of_flash_attn_4(name: str) -> None:
    _check_gradients(_half(CASES[name]), flex_attention)


@pytest.mark.parametrize("name", [name for name in LONG if name != "dense tail"])
@pytest.mark.usefixtures("flash_library")
def test_gradients_of_two_passes(name: str) -> None:
    _check_gradients(_half(replace(CASES[name], backend="flash_attention_2")), two_pass_attention)


@pytest.mark.parametrize("kernel", [flex_attention, two_pass_attention, blocked_attention])
@pytest.mark.usefixtures("flash_library")
def test_poisoned_memory(kernel: Any) -> None:
    """Every output is written: what lay in its memory before never shows."""
    call = _half(replace(CASES["left-padded"], backend="flash_attention_2"))
    # As large as what the kernel allocates, so that the allocator gives it just this memory again.
    poison = [torch.full_like(call.run(kernel), float("nan")) for _ in range(64)]
    del poison
    assert torch.isfinite(call.run(kernel)).all()


@pytest.mark.usefixtures("triton_only")
def test_fifty_lengths_compile_at_most_four_times() -> None:
    """Whole blocks have a kernel of their own; that lengths vary, the compiler sees at the second one."""
    from torch._dynamo.utils import counters

    case = Case(window=128, keep_first=7, dim=64)
    before = counters["stats"]["unique_graphs"]
    for length in range(200, 1200, 20):
        call = Call(replace(case, new=length), "cuda", torch.bfloat16)
        assert call.error(call.run(flex_attention), call.expected()) < 1e-2
    assert counters["stats"]["unique_graphs"] - before <= 4


@needs_flash
@pytest.mark.usefixtures("flash_only")
def test_fifty_lengths_through_flash_attn_4() -> None:
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    for length in range(200, 1200, 20):
        call = Call(Case(window=128, keep_first=7, dim=64, new=length), "cuda", torch.bfloat16)
        assert call.error(call.run(flex_attention), call.expected()) < 1e-2
    assert counters["stats"]["unique_graphs"] - before <= 3


@pytest.mark.parametrize("kernel", [flex_attention, two_pass_attention])
@pytest.mark.usefixtures("flash_library")
def test_memory_is_linear(kernel: Any) -> None:
    """The output, copies of the states, and little else: 32768 x 32768 bools alone would be 1 GiB."""
    call = Call(Case(window=512, new=32768, dim=64, heads=2, kv_heads=1, backend="flash_attention_2"), "cuda")
    call.query, call.key, call.value = (s.bfloat16() for s in (call.query, call.key, call.value))
    call.run(kernel)
    call.state.plans.clear()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call.run(kernel)
    assert torch.cuda.max_memory_allocated() - before < 8 * call.query.nbytes + 2**25
