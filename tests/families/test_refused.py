"""Families and configurations that can't be converted: one line says why."""

from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from swaa_convert import source_checks
from swaa_convert.families import families, transformers_for
from swaa_convert.unsupported import why_not
from tests.malformed.damage import config, refuses
from tests.support.command import run
from tests.support.more_families import MORE_FAMILIES
from tests.support.sources import FAMILIES, make_source

WINDOWED = "already has windowed or linear layers"
HYBRID = ["full_attention", "sliding_attention"] * 2
SLIDING: list[tuple[str, dict[str, Any], str]] = [
    ("mistral", {"sliding_window": 1024}, "sliding_window is 1024"),
    ("mistral", {"sliding_window": ...}, "sliding_window is not in config.json, which means 4096"),
    ("mistral", {"sliding_window": 4095}, "sliding_window is 4095"),
    ("ministral3", {"sliding_window": 1024}, "sliding_window is 1024"),
    ("phi3", {"sliding_window": 2047}, "sliding_window is 2047"),
    ("starcoder2", {"sliding_window": 4095}, "sliding_window is 4095"),
    ("exaone4", {"layer_types": ..., "sliding_window": 2048}, "sliding_window is 2048"),
    ("exaone4", {"layer_types": ..., "sliding_window": 9999}, "sliding_window is 9999"),
    ("exaone4", {"layer_types": HYBRID, "sliding_window": 2048}, "layer_types has sliding_attention"),
    ("smollm3", {"layer_types": HYBRID}, "layer_types has sliding_attention"),
    ("smollm3", {"layer_types": ..., "use_sliding_window": True, "sliding_window": 64}, "use_sliding_window is true"),
]
FULL: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"sliding_window": 4096}),
    ("phi3", {"sliding_window": ...}),
    ("exaone4", {"sliding_window": 2048}),
    ("starcoder2", {"sliding_window": ...}),
    ("smollm3", {"layer_types": ..., "sliding_window": 64}),
]
REASONS = {
    "Gemma2ForCausalLM": "some of its layers are windowed or chunked already",
    "Gemma3ForConditionalGeneration": "some of its layers are windowed or chunked already",
    "Olmo3ForCausalLM": "some of its layers are windowed or chunked already",
    "Lfm2ForCausalLM": "state-space, linear or convolutional",
    "Qwen3NextForCausalLM": "state-space, linear or convolutional",
    "MambaForCausalLM": "it has no attention",
    "DeepseekV3ForCausalLM": "multi-head latent attention",
    "MixtralForCausalLM": "its experts need code of their own",
    "NemotronForCausalLM": "pass nothing on to their attention",
    "BloomForCausalLM": "an attention of its own",
    "DoryForCausalLM": "it runs some of its layers several times for each token",
    "DogeForCausalLM": "it chooses by itself what each token sees",
    "BertLMHeadModel": "it is an encoder that was given a language model's head",
    "XLMWithLMHeadModel": "an attention of its own",
    "BartForCausalLM": "it is one half of an encoder-decoder",
    "Emu3ForCausalLM": "it reads more than text",
    "GPT2LMHeadModel": "built in another way than Llama's",
    "LlavaForConditionalGeneration": "is a LlavaForConditionalGeneration, which is not a language model alone",
    "MineForCausalLM": "is a MineForCausalLM; supported are (each with ForCausalLM) Apertus, Apertus1p5Text, ",
}


@pytest.mark.parametrize(("family", "changes", "said"), SLIDING)
def test_windowed_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(source_checks, "version", lambda name: "5.24.0")
    refuses(make_source(tmp_path / "source", family), config(**changes), WINDOWED, said)


@pytest.mark.parametrize(("family", "changes"), FULL)
def test_fields_that_window_nothing(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    source = make_source(tmp_path / "source", family, **changes)
    assert run(source, "--out", tmp_path / "out", "--dry-run").exit_code == 0


@pytest.mark.parametrize("architecture", REASONS)
def test_the_reason_is_said(architecture: str, source: Path) -> None:
    refuses(source, config(architectures=[architecture]), f"is a {architecture}", REASONS[architecture])


def test_every_decoder_of_this_transformers_is_supported_or_has_a_reason() -> None:
    known = {family.architecture for family in families()}
    there = {name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() if isinstance(name, str)}
    assert [name for name in sorted(there - known) if "supported are" in why_not(name)] == []


def test_no_supported_family_has_a_reason() -> None:
    assert [family.architecture for family in families() if "supported are" not in why_not(family.architecture)] == []


@pytest.mark.parametrize(
    ("family", "needs"),
    [("ministral3", ">=5.4"), ("apertus", ">=5.3"), ("persimmon", ">=5.3"), ("hunyuan_v1_dense", "!=5.0.0")],
)
def test_a_transformers_without_the_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, needs: str
) -> None:
    monkeypatch.setattr(source_checks, "version", lambda name: "5.0.0")
    said = f"for which transformers{needs} is needed, but 5.0.0 is installed: pip install 'transformers{needs}'"
    refuses(make_source(tmp_path / "source", family), config(), said)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("swaa_qwen3", "4.57 or newer"),
        ("swaa_ministral3", "5.4 or newer"),
        ("swaa_hunyuan_v1_dense", "4.57 or newer, but not 5.0.0"),
    ],
)
def test_the_card_says_which_transformers(family: str, words: str) -> None:
    assert transformers_for(family) == words


def test_every_family_is_tested() -> None:
    assert {family.model_type for family in families()} == {*FAMILIES, *MORE_FAMILIES}
