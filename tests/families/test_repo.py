"""Each family's way through the command line, and back out of transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache

from swaa_convert.convert import convert_checkpoint
from swaa_convert.inspect.figures import kv_bytes_per_key
from swaa_convert.merge.adapter import open_adapters
from swaa_convert.recipe import Recipe
from tests.bench.conftest import RECIPES, settings
from tests.families.matrix import each, in_turn
from tests.support.adapters import assert_same_bits, make_adapter, saved_by_peft, stored
from tests.support.command import run
from tests.support.embed import Zoo, load, logits, one, prompt
from tests.support.oracle import assert_close, from_position
from tests.support.sources import make_config, make_source

IDS = [prompt(90)]
LORA: dict[str, dict[str, Any]] = {
    "every matrix": {"target_modules": "all-linear"},
    "DoRA": {"target_modules": "all-linear", "use_dora": True},
    "rsLoRA": {"target_modules": "all-linear", "use_rslora": True},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head"]},
}


@each()
def test_converted_verified_and_inspected(zoo: Zoo, tmp_path: Path, family: str) -> None:
    out = tmp_path / "repo"
    made = run(zoo.source(family), "--out", out, "--window", "8", "--keep-first", "2", "--quiet")
    assert made.exit_code == 0, made.output
    verified = run("verify", out, "--source", zoo.source(family))
    assert verified.exit_code == 0 and "forward pass finite" in verified.output, verified.output
    found = run("inspect", out, "--json", "--lengths", "1k")
    assert found.exit_code == 0 and json.loads(found.output), found.output


@each()
def test_the_cache_is_as_large_as_inspect_says(zoo: Zoo, family: str) -> None:
    model, cache = zoo.model(family), DynamicCache()
    logits(model, one(prompt(50)), past_key_values=cache)
    config = json.loads((zoo.repo(family) / "config.json").read_text())
    assert sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) == 200 * kv_bytes_per_key(config)


@each()
def test_saved_and_loaded(zoo: Zoo, tmp_path: Path, family: str) -> None:
    saved = tmp_path / f"saved_{family}"
    zoo.model(family).save_pretrained(saved)
    assert load_file(saved / "model.safetensors").keys() == load_file(zoo.source(family) / "model.safetensors").keys()
    again = tmp_path / f"again_{family}"
    load(saved).save_pretrained(again)
    assert torch.equal(logits(load(again), IDS, dense_from=50), logits(zoo.model(family), IDS, dense_from=50))


@each()
def test_a_source_that_this_transformers_saved(zoo: Zoo, tmp_path: Path, family: str) -> None:
    zoo.stock(family).save_pretrained(tmp_path / "saved")
    repo = convert_checkpoint(tmp_path / "saved", tmp_path / f"resaved_{family}", Recipe(window=8, keep_first=2))
    expected = zoo.oracle(family).logits(IDS[0], from_position(50))
    assert_close(logits(load(repo), IDS, dense_from=50)[0], expected)


@each()
def test_the_base_model_and_a_model_from_its_config(zoo: Zoo, family: str) -> None:
    base = AutoModel.from_pretrained(zoo.repo(family), trust_remote_code=True)
    config = AutoConfig.from_pretrained(zoo.repo(family), trust_remote_code=True)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=True).eval()
    model.load_state_dict(zoo.model(family).state_dict())
    assert torch.equal(logits(model, IDS), logits(zoo.model(family), IDS))
    with torch.no_grad():
        expected = zoo.model(family).model(one(IDS[0])).last_hidden_state
        assert torch.equal(base(one(IDS[0])).last_hidden_state, expected)


@in_turn(list(LORA))
def test_a_lora_is_merged_with_pefts_bits(tmp_path: Path, family: str, case: str) -> None:
    source = make_source(tmp_path / "source", family, dtype=torch.bfloat16, shards=3)
    adapter = make_adapter(source, tmp_path / "adapter", **LORA[case])
    options: dict[str, Any] = {"adapters": open_adapters([str(adapter)]), "quiet": True}
    repo = convert_checkpoint(source, tmp_path / "ours", Recipe(window=8, keep_first=2), **options)
    assert_same_bits(stored(repo), stored(saved_by_peft(source, [adapter], torch.bfloat16, tmp_path / "theirs")))


@each()
def test_benched_with_random_weights(tmp_path: Path, family: str) -> None:
    from swaa_convert.bench.models import build
    from swaa_convert.bench.subject import open_subject
    from swaa_convert.bench.variants import parse_recipes, settle_variants

    file = tmp_path / "tiny.json"
    file.write_text(json.dumps(make_config(family)))
    subject, made = open_subject(str(file), random_weights=True), settings(random_weights=True)
    models = build(subject, None, settle_variants(parse_recipes(RECIPES), subject), made, tmp_path)
    for contestant in models:
        assert logits(contestant.model, IDS).isfinite().all()
    full, *windowed = [logits(contestant.model, [IDS[0][:8]]) for contestant in models]
    assert all(torch.equal(one, full) for one in windowed)


# The newest version has a new name for this, which older ones don't know.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing.* is deprecated:FutureWarning")
@in_turn(["plain", "checkpointed"], per_family=1)
def test_gradients(zoo: Zoo, family: str, case: str) -> None:
    """Labels mark the generated tokens; the loss and its gradient are the stock model's under the rule."""
    ids, model, oracle = prompt(90), load(zoo.repo(family)), zoo.oracle(family)
    expected = oracle.logits_with_grad(ids, from_position(70))
    loss = torch.nn.functional.cross_entropy(expected[69:-1], torch.tensor(ids[70:]))
    weights = [oracle.stock.model.layers[0].self_attn, model.model.layers[0].self_attn]
    names = [next(module.parameters()) for module in weights]
    [right] = torch.autograd.grad(loss, names[:1])
    if case == "checkpointed":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        _without_dropout(model)
    found = model(one(ids), labels=torch.tensor([[-100] * 70 + ids[70:]]))
    assert_close(found.loss, loss)
    assert_close(torch.autograd.grad(found.loss, names[1:])[0], right, 1e-4)


def _without_dropout(model: Any) -> None:
    for module in model.modules():
        for name in ("residual_dropout", "attention_dropout"):
            if hasattr(module, name):
                setattr(module, name, 0.0)
