"""A LoRA attached to the embedded model, against the stock model with the same LoRA merged in."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from tests.support.embed import Zoo, greedy, load, logits, prompt, swaa_config
from tests.support.oracle import Oracle, assert_close, from_position

# peft asks for a name that the newest transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
FAMILIES = ("qwen3", "qwen2", "llama")
families = pytest.mark.parametrize("family", FAMILIES)


def _attached(zoo: Zoo, family: str = "qwen3", **recipe: Any) -> Any:
    """A model with a LoRA that changes what it says."""
    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(load(zoo.repo(family, **recipe)), config).eval()


def _merged_oracle(zoo: Zoo, attached: Any, family: str = "qwen3", **recipe: Any) -> Oracle:
    stock = copy.deepcopy(zoo.stock(family, "eager"))
    stock.load_state_dict(copy.deepcopy(attached).merge_and_unload().state_dict())
    return Oracle(stock, swaa_config(zoo.repo(family, **recipe)))


@families
def test_forward_and_generation(zoo: Zoo, family: str) -> None:
    model, ids = _attached(zoo, family), prompt(90)
    oracle = _merged_oracle(zoo, model, family)
    actual = logits(model, [ids], dense_from=60)[0]
    assert_close(actual, oracle.logits(ids, from_position(60)))
    assert not torch.allclose(actual, logits(zoo.model(family), [ids], dense_from=60)[0])
    assert greedy(model, ids, 10) == [oracle.greedy(ids, 10)]


@pytest.mark.parametrize("recipe", [{"fa_decode": False}, {"fa_tail": 3}, {"full_layers": ()}], ids=str)
def test_recipes(zoo: Zoo, recipe: dict[str, Any]) -> None:
    model, ids = _attached(zoo, **recipe), prompt(90)
    assert greedy(model, ids, 10) == [_merged_oracle(zoo, model, **recipe).greedy(ids, 10)]


def test_labels(zoo: Zoo) -> None:
    """The generated tokens are known through peft's own forward too, and only the LoRA learns."""
    model, ids = _attached(zoo).train(), prompt(90)
    labels = [-100] * 60 + ids[60:]
    loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    expected = _merged_oracle(zoo, model).logits(ids, from_position(60))
    assert_close(loss, torch.nn.functional.cross_entropy(expected[59:-1], torch.tensor(ids[60:])))
    loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning and all("lora_" in name for name in learning)


def test_merged(zoo: Zoo, tmp_path: Path) -> None:
    model, ids = _attached(zoo), prompt(90)
    expected = logits(model, [ids], dense_from=60)
    merged = model.merge_and_unload()
    assert_close(logits(merged, [ids], dense_from=60), expected)
    merged.save_pretrained(tmp_path / "merged")
    assert torch.equal(logits(load(tmp_path / "merged"), [ids]), logits(merged, [ids]))


def test_an_adapter_saved_and_attached_again(zoo: Zoo, tmp_path: Path) -> None:
    model, ids = _attached(zoo), prompt(90)
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(zoo.repo()), tmp_path / "adapter").eval()
    assert torch.equal(logits(again, [ids], dense_from=60), logits(model, [ids], dense_from=60))
