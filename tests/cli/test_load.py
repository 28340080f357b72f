"""A converted repo loads with transformers' Auto classes, and short prompts are the source model's."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.support.sources import FAMILIES, make_source


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_and_equals_the_source_within_the_window(family: str, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", family, shards=2)
    repo = convert_checkpoint(source, tmp_path / f"converted-{family}", Recipe(window=12, keep_first=4))
    tokenizer = AutoTokenizer.from_pretrained(repo, trust_remote_code=True)
    tokens = tokenizer("0123456789abcdef", return_tensors="pt").input_ids
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(source)(tokens).logits
        ours = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True)(tokens).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_that_this_transformers_saved(family: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_source(tmp_path / "source", family))
    model.save_pretrained(tmp_path / "saved")
    repo = convert_checkpoint(tmp_path / "saved", tmp_path / f"resaved-{family}", Recipe(window=12, keep_first=4))
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        ours = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True)(tokens).logits
        torch.testing.assert_close(ours, model(tokens).logits, rtol=0, atol=1e-5)


def test_refuses_to_load_without_trust(qwen3_source: Path, tmp_path: Path) -> None:
    repo = convert_checkpoint(qwen3_source, tmp_path / "untrusted", Recipe())
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=False)
