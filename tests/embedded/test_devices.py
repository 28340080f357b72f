"""Models that accelerate places, and models that torch compiles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CompileConfig, DynamicCache, StaticCache

from tests.support.embed import (
    CACHE,
    FAMILIES,
    TORCH,
    VERSION,
    Zoo,
    greedy,
    load,
    logits,
    one,
    pad_left,
    prompt,
    two_gpus,
)
from tests.support.oracle import assert_close, from_position

pytestmark = [
    # torch's own tracing of the vmap that builds masks in 4.57.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    # What stock full layers build FlexAttention's masks with.
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
]
families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_device_map_auto(zoo: Zoo, family: str) -> None:
    model, ids = load(zoo.repo(family), device_map="auto"), prompt(90)
    assert torch.equal(logits(model, [ids]), logits(zoo.model(family), [ids]))
    assert greedy(model, ids, 6) == [zoo.oracle(family).greedy(ids, 6)]


@pytest.mark.parametrize("recipe", [{}, {"full_layers": (), "fa_decode": False}, {"full_layers": ()}], ids=str)
def test_layers_kept_on_disk(zoo: Zoo, tmp_path: Path, recipe: dict[str, Any]) -> None:
    """accelerate's hooks fetch each layer's weights when it runs."""
    names = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", "model.layers.0", "model.layers.1"]
    places: dict[str, str] = dict.fromkeys(names, "cpu") | {"model.layers.2": "disk", "model.layers.3": "disk"}
    model, ids = load(zoo.repo(**recipe), device_map=places, offload_folder=str(tmp_path / "disk")), prompt(90)
    assert model.model.layers[3].self_attn.q_proj.weight.device.type == "meta"
    assert_close(logits(model, [ids], dense_from=60)[0], zoo.oracle(**recipe).logits(ids, from_position(60)))
    assert greedy(model, ids, 6) == [zoo.oracle(**recipe).greedy(ids, 6)]


@pytest.mark.parametrize("recipe", [{}, {"full_layers": (), "fa_decode": False}, {"full_layers": ()}], ids=str)
@pytest.mark.parametrize("backend", [pytest.param(b, marks=two_gpus) for b in ("eager", "sdpa", "flex_attention")])
def test_layers_on_two_gpus(zoo: Zoo, backend: str, recipe: dict[str, Any]) -> None:
    """accelerate moves the states from one to the other; what layers share must be on the one that asks."""
    first, second = ("model.embed_tokens", "model.rotary_emb", "model.layers.0"), ("model.layers.1", "model.layers.2")
    places = dict.fromkeys(first, 0) | dict.fromkeys(second, 1) | {"model.layers.3": 0, "model.norm": 1, "lm_head": 1}
    model, ids = load(zoo.repo(**recipe), backend, device_map=places), prompt(300)
    # Stock full layers compile FlexAttention over a padding mask that lies on the first GPU, and fail.
    batch = pad_left([ids, ids if backend == "flex_attention" and not recipe else prompt(200)])
    actual = logits(model, **{name: tensor.to("cuda") for name, tensor in batch.items()}).cpu()
    expected = logits(zoo.model(backend="eager", **recipe), **batch)
    real = batch["attention_mask"].bool()
    assert (actual[real] - expected[real]).norm() < 2e-5 * expected[real].norm()
    assert greedy(model, {"input_ids": one(ids).to("cuda")}, 8) == [zoo.oracle(**recipe).greedy(ids, 8)]


def _decode(model: Any, step: Any, ids: list[int], cache: Any, **options: Any) -> list[torch.Tensor]:
    """Logits of single tokens after a prompt of 60."""
    logits(model, one(ids[:60]), past_key_values=cache, use_cache=True, **options)
    outputs = []
    with torch.no_grad():
        for n in range(60, len(ids)):
            position = {"cache_position": torch.tensor([n])}
            outputs.append(step(input_ids=one([ids[n]]), **{CACHE: cache}, **position, **options).logits[0, -1])
    return outputs


@pytest.mark.parametrize("recipe", [{}, {"full_layers": (), "fa_decode": False}], ids=str)
@pytest.mark.parametrize("dense_from", [0, 1000])
def test_a_compiled_step_with_a_static_cache(zoo: Zoo, recipe: dict[str, Any], dense_from: int) -> None:
    """One graph for all steps. Traced, but not handed to a compiler: that takes a minute and adds nothing here."""
    torch._dynamo.reset()
    model, ids = load(zoo.repo(**recipe)), prompt(70)
    graphs = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    step = torch.compile(model.forward, backend=count, fullgraph=True)
    cache = StaticCache(config=model.config, max_cache_len=80)
    actual = _decode(model, step, ids, cache, dense_from=dense_from)
    expected = zoo.oracle(**recipe).logits(ids, from_position(dense_from))[60:]
    assert_close(torch.stack(actual), expected)
    assert len(graphs) <= 2


def _compiler(graphs: list[Any]) -> Any:
    """Has `generate` trace its steps on a CPU too, and collects the graphs."""
    torch._dynamo.reset()

    def collect(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    found = CompileConfig(backend=collect, mode=None, fullgraph=True)
    found._compile_all_devices = True
    return found


@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}, {"full_layers": (), "fa_decode": False}], ids=str)
def test_compiled_generation_of_a_padded_batch(zoo: Zoo, recipe: dict[str, Any]) -> None:
    """One graph, though the mask grows with every token: on a GPU each new shape would be recorded anew."""
    graphs: list[Any] = []
    options = {"cache_implementation": "static", "compile_config": _compiler(graphs)}
    model, rows = load(zoo.repo(**recipe)), [prompt(length, seed=length) for length in (1, 30, 70)]
    assert greedy(model, pad_left(rows), 12, **options) == [zoo.oracle(**recipe).greedy(row, 12) for row in rows]
    assert len(graphs) == 1


@pytest.mark.skipif(VERSION in ((5, 0), (5, 1), (5, 2)), reason="chunked prefill is refused here")
@pytest.mark.parametrize("recipe", [{}, {"fa_decode": False}, {"fa_tail": 3}], ids=str)
def test_compiled_chunks_of_a_prompt(zoo: Zoo, recipe: dict[str, Any]) -> None:
    """Windowed layers read sinks and window of each block of queries, not the whole cache."""
    graphs: list[Any] = []
    options = {"cache_implementation": "static", "compile_config": _compiler(graphs), "prefill_chunk_size": 100}
    recipe, ids = {"full_layers": (), **recipe}, prompt(300)
    assert greedy(load(zoo.repo(**recipe)), ids, 6, **options) == [zoo.oracle(**recipe).greedy(ids, 6)]
    if "fa_tail" not in recipe and graphs:
        nodes = [node for node in graphs[0].graph.nodes if "scaled_dot_product" in str(node.target)]
        assert nodes and all(node.args[1].meta["example_value"].shape[2] < 100 for node in nodes)


def test_a_compiled_forward_pass(zoo: Zoo) -> None:
    torch._dynamo.reset()
    recipe: dict[str, Any] = {"full_layers": (1,), "config": {"num_hidden_layers": 2, "max_window_layers": 2}}
    model, ids = load(zoo.repo(**recipe)), prompt(150)
    compiled = torch.compile(model.forward, backend="eager")
    with torch.no_grad():
        actual = compiled(input_ids=one(ids), dense_from=100, use_cache=False).logits
    assert_close(actual[0], zoo.oracle(**recipe).logits(ids, from_position(100)))


def _counting(graphs: list[Any]) -> Any:
    torch._dynamo.reset()

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    return count


@pytest.mark.parametrize("past", [0, 150])
def test_compiled_prompts_are_not_tied_to_their_lengths(zoo: Zoo, past: int) -> None:
    """One graph for all lengths of as many blocks, with what was cached before and without."""
    recipe: dict[str, Any] = {"window": 70, "full_layers": (1, 3), "fa_decode": False}
    model, oracle, graphs = load(zoo.repo(**recipe)), zoo.oracle(**recipe), []  # type: ignore[var-annotated]
    step = torch.compile(model.forward, backend=_counting(graphs))
    for length in (20, 33, 47, 51, 60) if past else (215, 230, 245, 260, 275):
        ids, cache = prompt(past + length), DynamicCache()
        options = {"past_key_values": cache, "use_cache": True} if past else {"use_cache": False}
        if past:
            logits(model, one(ids[:past]), **options)
        actual = logits(step, one(ids[past:]), **options)
        assert_close(actual[0], oracle.logits(ids)[past:])
    assert len(graphs) <= 2


@pytest.mark.skipif(TORCH < (2, 7), reason="PyTorch 2.6 can't export it")
@pytest.mark.filterwarnings("ignore:.*get_attr.*:UserWarning")
@pytest.mark.parametrize("given", [True, False])
def test_a_prompt_and_its_cache_are_exported(zoo: Zoo, given: bool) -> None:
    """Some versions export caches of stock layers only."""
    executorch = pytest.importorskip("transformers.integrations.executorch")
    executorch.register_dynamic_cache_export_support()
    model, ids = load(zoo.repo()), one(prompt(60))
    inputs = {"input_ids": ids, "position_ids": torch.arange(60)[None], "use_cache": True}
    with torch.no_grad():
        program = torch.export.export(model, (), inputs | ({CACHE: DynamicCache()} if given else {}), strict=False)
        output = program.module()(**inputs, **({CACHE: DynamicCache()} if given else {}))
    assert_close(output.logits[0], zoo.oracle().logits(ids[0].tolist()))
    assert output[CACHE].get_seq_length() == 60


@pytest.mark.parametrize("eager_steps", [0, 3])
def test_a_compiled_step_with_a_growing_cache(zoo: Zoo, eager_steps: int) -> None:
    """With FA decode: one graph for one length, one for all others, and one for the room that uncompiled steps left."""
    model, oracle, graphs, ids = load(zoo.repo()), zoo.oracle(), [], prompt(100)  # type: ignore[var-annotated]
    step, cache = torch.compile(model.forward, backend=_counting(graphs), fullgraph=True), DynamicCache()
    logits(model, one(ids[:70]), past_key_values=cache, use_cache=True)
    steps = []
    for position in range(70, 100):
        options = {"position_ids": torch.tensor([[position]]), "past_key_values": cache, "use_cache": True}
        forward = model if position < 70 + eager_steps else step
        steps.append(logits(forward, one([ids[position]]), dense_from=0, **options)[0])
    assert_close(torch.cat(steps), oracle.logits(ids, from_position(70))[70:])
    assert len(graphs) <= (3 if eager_steps else 2)


@pytest.mark.parametrize("lengths", [(70, 70), (70, 60)], ids=str)
def test_a_compiled_step_with_an_evicting_cache(zoo: Zoo, lengths: tuple[int, int]) -> None:
    """No break in any layer: keys are overwritten inside the graph, and the ring turns without a new one."""
    recipe: dict[str, Any] = {"full_layers": (), "fa_decode": False}
    model, oracle, graphs = load(zoo.repo(**recipe)), zoo.oracle(**recipe), []  # type: ignore[var-annotated]
    rows, more = [prompt(length, seed=n) for n, length in enumerate(lengths)], prompt(30, 5)
    step, cache = torch.compile(model.forward, backend=_counting(graphs), fullgraph=True), DynamicCache()
    batch = pad_left(rows)
    mask = batch["attention_mask"]
    ropes = (mask.cumsum(1) - 1).clamp(min=0)
    logits(model, **batch, position_ids=ropes, past_key_values=cache, use_cache=True)
    steps = []
    for token in more:
        mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
        options = {"position_ids": mask.sum(1, keepdim=True) - 1, "past_key_values": cache, "use_cache": True}
        options |= {} if bool(mask.all()) else {"attention_mask": mask}
        steps.append(logits(step, [[token], [token]], **options)[:, 0])
    for row, actual in zip(rows, torch.stack(steps, dim=1), strict=True):
        assert_close(actual, oracle.logits(row + more)[-30:])
    assert len(graphs) <= 4
