"""The shipped checkpoint: its files, its tokenizer, and that it answers with full attention."""

import json

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from swaa_convert.demo import task
from swaa_convert.demo.evaluate import accuracy, load
from swaa_convert.demo.words import IDS
from swaa_convert.resources import DEMO_CHECKPOINT

SHARDS = sorted(DEMO_CHECKPOINT.glob("*.safetensors"))
MESSAGE = [{"role": "user", "content": task.prompts(1, 200, 0)[0].message}]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(DEMO_CHECKPOINT)


def test_everything_is_there_and_small() -> None:
    names = {path.name for path in DEMO_CHECKPOINT.iterdir()}
    assert {"config.json", "generation_config.json", "chat_template.jinja", "LICENSE", "README.md"} < names
    assert {"tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"} < names
    assert sum(path.stat().st_size for path in DEMO_CHECKPOINT.iterdir()) < 8_000_000


def test_shards_hold_what_the_index_says() -> None:
    index = json.loads((DEMO_CHECKPOINT / "model.safetensors.index.json").read_text())
    found = {}
    for path in SHARDS:
        with safe_open(path, "pt") as shard:
            found |= {name: path.name for name in shard.keys()}
    assert len(SHARDS) == 2
    assert found == index["weight_map"]


@pytest.mark.parametrize("path", SHARDS, ids=lambda path: path.name)
def test_weights_are_bfloat16(path: object) -> None:
    with safe_open(path, "pt") as shard:
        assert {shard.get_slice(name).get_dtype() for name in shard.keys()} == {"BF16"}


def test_rope_theta_is_read_by_every_version() -> None:
    config = json.loads((DEMO_CHECKPOINT / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] != 10000
    loaded = AutoConfig.from_pretrained(DEMO_CHECKPOINT)
    theta = getattr(loaded, "rope_theta", None) or loaded.rope_parameters["rope_theta"]
    assert theta == config["rope_theta"]


@pytest.mark.parametrize("thinking", [False, True])
def test_tokenizer_gives_the_ids_of_training(tokenizer: PreTrainedTokenizerBase, thinking: bool) -> None:
    text = tokenizer.apply_chat_template(MESSAGE, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert IDS["<unk>"] not in ids
    assert len(ids) == task.lines_for(200) * task.LINE + task.overhead(thinking)


def test_template_thinks_unless_told_not_to(tokenizer: PreTrainedTokenizerBase) -> None:
    def rendered(**options: bool) -> str:
        return str(tokenizer.apply_chat_template(MESSAGE, tokenize=False, add_generation_prompt=True, **options))

    assert rendered() == rendered(enable_thinking=True)
    assert rendered(enable_thinking=False) == rendered() + "<think>\n\n</think>\n\n"


def test_template_leaves_past_thoughts_out(tokenizer: PreTrainedTokenizerBase) -> None:
    reply = {"role": "assistant", "content": "<think>\nIn Rome I met Ada Shaw.\n</think>\n\nShaw"}
    text = tokenizer.apply_chat_template([*MESSAGE, reply, *MESSAGE], tokenize=False)
    assert "think" not in text
    assert "<|im_start|>assistant\nShaw<|im_end|>\n" in text


@pytest.mark.parametrize("thinking", [False, True])
def test_full_attention_answers(thinking: bool) -> None:
    model, tokenizer = load(DEMO_CHECKPOINT)
    assert isinstance(model, Qwen3ForCausalLM)
    assert accuracy(model, tokenizer, task.prompts(4, 1024, 0), thinking=thinking) == 1
