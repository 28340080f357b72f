"""What stands in adapter_config.json: wrong types and values are refused, other families too, and named."""

from pathlib import Path
from typing import Any

import pytest

from tests.merge.changes import Change, setting, trained_on
from tests.merge.conftest import Make
from tests.support.command import refused, run

WRONG: list[tuple[str, Any, str]] = [
    ("r", "4", "a whole number from 1 on"),
    ("r", 0, "a whole number from 1 on"),
    ("r", -4, "a whole number from 1 on"),
    ("r", 4.0, "a whole number from 1 on"),
    ("r", True, "a whole number from 1 on"),
    ("lora_alpha", None, "a number"),
    ("lora_alpha", "8", "a number"),
    ("lora_alpha", True, "a number"),
    ("lora_dropout", "0.1", "a number"),
    ("rank_pattern", [], "an object of whole numbers from 1 on"),
    ("rank_pattern", None, "an object of whole numbers from 1 on"),
    ("rank_pattern", {"q_proj": "2"}, "an object of whole numbers from 1 on"),
    ("alpha_pattern", "q_proj", "an object of numbers"),
    ("alpha_pattern", {"q_proj": None}, "an object of numbers"),
    ("layers_to_transform", "1", "a layer's number, a list of them or null"),
    ("layers_to_transform", ["1"], "a layer's number, a list of them or null"),
    ("layers_pattern", 1, "a name, a list of names or null"),
    ("target_modules", 3, "a name, a list of names or null"),
    ("target_modules", ["q_proj", 3], "a name, a list of names or null"),
    ("target_modules", "(q_proj", "a valid regular expression"),
    ("target_modules", "q{99999999999}", "a valid regular expression"),
    ("layers_pattern", "(", "one or more valid regular expressions"),
    ("rank_pattern", {"(?i)q_proj": 4}, "an object whose keys are valid regular expressions"),
    ("modules_to_save", [""], "a list of names or null"),
    ("trainable_token_indices", [], "a list of numbers, such lists by module or null"),
    ("exclude_modules", "*", "a valid regular expression"),
    ("rank_pattern", {"[": 2}, "an object whose keys are valid regular expressions"),
    ("alpha_pattern", {"q_proj)": 2}, "an object whose keys are valid regular expressions"),
    ("exclude_modules", {}, "a name, a list of names or null"),
    ("modules_to_save", "lm_head", "a list of names or null"),
    ("target_parameters", "q_proj.weight", "a list of names or null"),
    ("trainable_token_indices", 3, "a list of numbers, such lists by module or null"),
    ("trainable_token_indices", {"embed_tokens": 3}, "a list of numbers, such lists by module or null"),
    ("use_rslora", "false", "true or false"),
    ("use_dora", 0, "true or false"),
    ("fan_in_fan_out", "no", "true or false"),
    ("bias", "some", "one of none, all, lora_only"),
    ("bias", [], "one of none, all, lora_only"),
    ("init_lora_weights", 3, "true, false or the name of a start"),
    ("base_model_name_or_path", {"a": 1}, "the name of a model"),
    ("peft_type", "lora", "'LORA'"),
    ("peft_type", 3, "'LORA'"),
]
SAME_FAMILY: dict[str, Change] = {
    "itself": trained_on("Qwen3ForCausalLM"),
    "its part": trained_on("Qwen3Model"),
    "another head": trained_on("Qwen3ForSequenceClassification"),
    "converted": trained_on("SwaaQwen3ForCausalLM", "transformers_modules.x.modeling_swaa_qwen3"),
    "another spelling": trained_on("QWen3ForCausalLM", "transformers_modules.x.modeling_qwen3"),
    "a wrapper": trained_on("AutoModelForCausalLMWithValueHead", "trl.models.modeling_value_head"),
    "somebody's own": trained_on("MyModel", "__main__"),
    "no class": trained_on(3),
    "no mapping": setting(auto_mapping=[]),
}


@pytest.mark.parametrize(("key", "value", "expected"), WRONG, ids=[f"{key}={value}" for key, value, _ in WRONG])
def test_wrong_settings(key: str, value: object, expected: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    setting(**{key: value})(adapter)
    line = refused(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--quiet")
    assert line.startswith(f"adapter: {key} in adapter_config.json is {value!r}, but it must be {expected}: mend it")


@pytest.mark.parametrize("case", SAME_FAMILY)
def test_the_same_family(case: str, source_of: Make, adapter: Path, tmp_path: Path) -> None:
    SAME_FAMILY[case](adapter)
    result = run(source_of(), "--lora", adapter, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0, result.output
