"""The models: stock and shipped code on one copy of the weights, equal to what a user loads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from swaa_convert.bench.memory import stored_bytes
from swaa_convert.convert import convert_checkpoint
from swaa_convert.errors import SwaaError
from swaa_convert.recipe import Recipe
from tests.bench.conftest import RECIPES, Make
from tests.support.sources import make_config

FAMILIES = ("qwen3", "qwen2", "qwen3_moe", "llama")
IDS = torch.randint(0, 256, (1, 40), generator=torch.Generator().manual_seed(0))
Sources = Callable[..., Path]


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits


def storages(model: nn.Module) -> dict[str, int]:
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_variants_equal_converted_repos_and_share_every_tensor(
    family: str, sources: Sources, make: Make, tmp_path: Path
) -> None:
    source = sources(family)
    full, dense, lean = make(source)
    assert torch.equal(logits(full.model), logits(AutoModelForCausalLM.from_pretrained(source)))
    out = tmp_path / f"bench_{family}"
    convert_checkpoint(source, out, Recipe(window=8, keep_first=2, fa_decode=False), check=False)
    assert torch.equal(logits(lean.model), logits(AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)))
    assert not torch.equal(logits(lean.model), logits(full.model))
    assert storages(full.model) == storages(dense.model) == storages(lean.model)
    experts = {getattr(one.model.config, "_experts_implementation", None) for one in (full, dense, lean)}
    assert len(experts) == 1


def test_full_attention_is_the_stock_class(repo: Path, make: Make) -> None:
    full, own = make(repo, None)
    assert type(full.model) is Qwen3ForCausalLM and full.swaa is None
    assert type(own.model).__name__ == "SwaaQwen3ForCausalLM"
    assert torch.equal(logits(own.model), logits(AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True)))


@pytest.mark.parametrize("random_weights", [False, True])
def test_tied_embeddings_stay_tied(random_weights: bool, sources: Sources, make: Make) -> None:
    for contestant in make(sources("qwen3", tie_word_embeddings=True), random_weights=random_weights):
        assert contestant.model.lm_head.weight is contestant.model.model.embed_tokens.weight
        assert contestant.weight_bytes == sum(p.nbytes for p in contestant.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_need_a_config_only(family: str, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "tiny.json"
    file.write_text(json.dumps(make_config(family, hidden_size=128)))
    full, _, lean = make(file, dtype="bfloat16", random_weights=True)
    assert storages(full.model) == storages(lean.model)
    for name, weight in full.model.named_parameters():
        assert weight.dtype == torch.bfloat16
        assert (weight == 1).all() if "norm" in name else weight.float().std() < 0.03, name
    assert full.model.model.embed_tokens.weight.float().std() == pytest.approx(0.02, rel=0.1)
    again = make(file, dtype="bfloat16", random_weights=True)
    assert torch.equal(logits(again[0].model), logits(full.model)) and logits(full.model).isfinite().all()


def test_random_weights_keep_the_true_positions(qwen3_source: Path, make: Make) -> None:
    drawn = make(qwen3_source, random_weights=True)[-1].model
    loaded = AutoModelForCausalLM.from_pretrained(qwen3_source)
    assert torch.equal(drawn.model.rotary_emb.inv_freq, loaded.model.rotary_emb.inv_freq)


def test_fewer_layers_are_the_first_ones(qwen3_source: Path, make: Make, tmp_path: Path) -> None:
    from swaa_convert.bench.models import build
    from swaa_convert.bench.subject import cut, open_subject
    from tests.bench.conftest import settings

    [full] = build(cut(open_subject(str(qwen3_source)), 2), None, [], settings(), tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(qwen3_source)
    whole.model.layers = whole.model.layers[:2]
    assert torch.equal(logits(full.model), logits(whole))


def test_an_unknown_backend_is_said_in_one_line(qwen3_source: Path, make: Make) -> None:
    with pytest.raises(SwaaError) as error:
        make(qwen3_source, RECIPES, backend="nonsense")
    assert "nonsense" in error.value.message and "\n" not in error.value.message


def test_weight_bytes_count_a_storage_once() -> None:
    buffer = torch.zeros(10)
    assert stored_bytes([buffer[:2], buffer[5:], torch.zeros(3)]) == 52
