"""On a CUDA device: every backend, against plain attention in float32 on the CPU."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from tests.support.embed import FAMILIES, Zoo, greedy, load, pad_left, prompt
from tests.support.oracle import assert_close, from_position

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # torch's compiler of its own internals, and the stock masks of full layers.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*TensorFloat32.*:UserWarning"),
    # The newest version has a new name for it, which older ones don't know.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.* is deprecated:FutureWarning"),
]
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "every layer windowed": {"full_layers": ()},
    "no FA decode": {"full_layers": (), "fa_decode": False},
    "sinks past a block": {"full_layers": (), "keep_first": 140, "window": 30},
    "no sinks": {"full_layers": (), "keep_first": 0, "window": 1, "fa_decode": False},
    "wide": {"full_layers": (1,), "window": 200, "keep_first": 4},
    "dense tail": {"full_layers": (), "fa_tail": 10},
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa", "flex_attention"])
fast = pytest.mark.parametrize("backend", ["sdpa", "flex_attention"])
# The order of sums differs between devices.
NEAR = 5e-5


@pytest.fixture(autouse=True, scope="module")
def exact_float32() -> Iterator[None]:
    """No TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def gpu(zoo: Zoo) -> Any:
    """Models on the device, each loaded once."""
    made: dict[Any, Any] = {}

    def get(backend: str, recipe: str = "interleaved", family: str = "qwen3", dtype: Any = torch.float32) -> Any:
        key = (backend, recipe, family, dtype)
        if key not in made:
            made[key] = load(zoo.repo(family, **RECIPES[recipe]), backend, dtype=dtype).cuda()
        return made[key]

    return get


def _logits(model: Any, input_ids: Any, **options: Any) -> torch.Tensor:
    ids = torch.as_tensor(input_ids).cuda()
    options = {name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    with torch.no_grad():
        return model(input_ids=ids, **options).logits.float().cpu()


def _greedy(model: Any, inputs: Any, new: int = 8, **options: Any) -> list[list[int]]:
    inputs = {"input_ids": torch.tensor([inputs])} if isinstance(inputs, list) else inputs
    return greedy(model, {name: value.cuda() for name, value in inputs.items()}, new, **options)


@pytest.mark.parametrize("length", [8, 100, 128, 129, 300, 511])
@recipes
@backends
def test_forward(zoo: Zoo, gpu: Any, backend: str, recipe: str, length: int) -> None:
    ids = prompt(length)
    actual = _logits(gpu(backend, recipe), [ids], dense_from=length * 3 // 4)
    assert_close(actual[0], zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(length * 3 // 4)), NEAR)


@pytest.mark.parametrize("family", FAMILIES)
@backends
def test_families(zoo: Zoo, gpu: Any, backend: str, family: str) -> None:
    ids = prompt(300)
    assert_close(_logits(gpu(backend, family=family), [ids])[0], zoo.oracle(family).logits(ids), NEAR)
    assert _greedy(gpu(backend, family=family), ids) == [zoo.oracle(family).greedy(ids, 8)]


@pytest.mark.parametrize("length", [5, 70, 300])
@recipes
@backends
def test_generation(zoo: Zoo, gpu: Any, backend: str, recipe: str, length: int) -> None:
    ids = prompt(length)
    assert _greedy(gpu(backend, recipe), ids) == [zoo.oracle(**RECIPES[recipe]).greedy(ids, 8)]


@recipes
@backends
def test_padded_generation(zoo: Zoo, gpu: Any, backend: str, recipe: str) -> None:
    rows, oracle = [prompt(4), prompt(150, 2), prompt(333, 3)], zoo.oracle(**RECIPES[recipe])
    assert _greedy(gpu(backend, recipe), pad_left(rows)) == [oracle.greedy(row, 8) for row in rows]


@recipes
@backends
def test_a_packed_row(zoo: Zoo, gpu: Any, backend: str, recipe: str) -> None:
    lengths = (150, 1, 200, 49)
    rows = [prompt(length, seed) for seed, length in enumerate(lengths)]
    positions = torch.tensor([[n for length in lengths for n in range(length)]])
    actual = _logits(gpu(backend, recipe), [sum(rows, [])], position_ids=positions)[0]
    for row in rows:
        part, actual = actual[: len(row)], actual[len(row) :]
        assert_close(part, zoo.oracle(**RECIPES[recipe]).logits(row), NEAR)


@recipes
@backends
def test_chunks_over_a_cache(zoo: Zoo, gpu: Any, backend: str, recipe: str) -> None:
    ids, cache = prompt(400), DynamicCache()
    expected = zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(390))
    for start, end in ((0, 200), (200, 385), (385, 386), (386, 400)):
        actual = _logits(gpu(backend, recipe), [ids[start:end]], past_key_values=cache, use_cache=True, dense_from=390)
        assert_close(actual[0], expected[start:end], NEAR)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"cache_implementation": "offloaded"},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_early_exit": 2},
        {"prefill_chunk_size": 150},
        {"use_cache": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("recipe", ["interleaved", "no FA decode"])
def test_ways_to_generate(zoo: Zoo, gpu: Any, recipe: str, options: dict[str, Any]) -> None:
    """A static cache is decoded by a compiled graph here."""
    ids = (prompt(9) * 40)[:300]
    expected = zoo.oracle(**RECIPES[recipe]).greedy(ids, 12)
    assert _greedy(gpu("sdpa", recipe), ids, 12, **options)[0][:12] == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=str)
@backends
def test_eviction(gpu: Any, backend: str, options: dict[str, Any]) -> None:
    ids = torch.tensor([prompt(300)]).cuda()
    output = gpu(backend, "no FA decode").generate(
        ids, max_new_tokens=10, do_sample=False, return_dict_in_generate=True, **options
    )
    counts = {layer.keys.shape[-2] for layer in output.past_key_values.layers}
    assert counts == {9} or (options.get("prompt_lookup_num_tokens") and max(counts) <= 12)


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "sinks past a block", "dense tail"])
@backends
def test_gradients(zoo: Zoo, gpu: Any, backend: str, recipe: str) -> None:
    ids = prompt(300)
    labels = torch.tensor([[-100] * 200 + ids[200:250] + [-100] * 50])
    reference = copy.deepcopy(zoo.model(backend="eager", **RECIPES[recipe]))
    reference(torch.tensor([ids]), labels=labels).loss.backward()
    model = copy.deepcopy(gpu(backend, recipe)).train()
    model(torch.tensor([ids]).cuda(), labels=labels.cuda()).loss.backward()
    expected = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert_close(parameter.grad.cpu(), expected[name].grad, 5e-4)


@fast
def test_gradient_checkpointing(zoo: Zoo, gpu: Any, backend: str) -> None:
    ids = torch.tensor([prompt(300)]).cuda()
    gradients = []
    for checkpointed in (False, True):
        model = copy.deepcopy(gpu(backend, "every layer windowed")).train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(ids, labels=ids).loss.backward()
        gradients.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    assert_close(gradients[1], gradients[0], NEAR)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "wide"])
@backends
def test_half_precision(zoo: Zoo, gpu: Any, backend: str, recipe: str, dtype: torch.dtype) -> None:
    """As near to float32 as plain attention in the same precision."""
    ids = prompt(300)
    exact = zoo.oracle(**RECIPES[recipe]).logits(ids, from_position(250))
    actual = _logits(gpu(backend, recipe, dtype=dtype), [ids], dense_from=250)[0]
    plain = _logits(gpu("eager", recipe, dtype=dtype), [ids], dense_from=250)[0]
    assert (actual - exact).abs().mean() < 1.3 * (plain - exact).abs().mean()


def test_memory_is_linear(zoo: Zoo, gpu: Any) -> None:
    """No N x N mask on the sdpa path."""
    peaks = []
    for length in (2048, 4096):
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        _logits(gpu("sdpa", "every layer windowed"), [prompt(length)], logits_to_keep=1)
        peaks.append(torch.cuda.max_memory_allocated() - base)
    assert peaks[1] < 2.3 * peaks[0]
