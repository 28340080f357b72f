"""Training: the tokens that have a label are the generated ones, in any batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from tests.support.embed import FAMILIES, Zoo, load, logits, pad_left, pad_right, prompt
from tests.support.oracle import Dense, Oracle, assert_close

pytestmark = [
    # The newest version has new names for these, which older ones don't know.
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing.* is deprecated:FutureWarning"),
    # Trainer and torch's checkpointing, inside transformers.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),
]
RECIPES: dict[str, dict[str, Any]] = {
    "interleaved": {},
    "no FA decode": {"fa_decode": False},
    "every layer windowed": {"full_layers": ()},
    "FA decode in some layers": {"full_layers": (), "fa_decode_layers": (1, 2)},
    "dense tail": {"fa_tail": 3},
    "every layer windowed, dense tail": {"full_layers": (), "fa_tail": 3},
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
backends = pytest.mark.parametrize("backend", ["eager", "sdpa"])
Row = tuple[list[int], list[range]]
# Token ids, and where the assistant speaks: one turn, several, all of it, from within the window.
ROWS: list[Row] = [
    (prompt(120, 1), [range(90, 120)]),
    (prompt(70, 2), [range(10, 20), range(40, 42), range(60, 65)]),
    (prompt(33, 3), [range(1, 33)]),
    (prompt(20, 4), [range(4, 9)]),
]


def _labels(row: Row) -> list[int]:
    ids, turns = row
    return [token if any(n in turn for turn in turns) else -100 for n, token in enumerate(ids)]


def _dense(turns: list[range], tail: int) -> Dense:
    """Each turn is generated; `tail` tokens before it are dense too."""
    return lambda position: any(turn.start - tail <= position < turn.stop for turn in turns)


def _batch(rows: list[Row], pad: Any = pad_right) -> dict[str, Tensor]:
    """A padded batch with labels."""
    inputs = pad([ids for ids, _ in rows])
    labels = pad([_labels(row) for row in rows])["input_ids"]
    # As generation numbers them; without, RoPE's rounding differs a little from that of an unpadded row.
    inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    inputs["labels"] = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    return inputs


def _expected_loss(oracle: Oracle, rows: list[Row]) -> Tensor:
    outputs, targets = [], []
    for ids, turns in rows:
        outputs.append(oracle.logits_with_grad(ids, _dense(turns, oracle.fa_tail))[:-1])
        targets.append(torch.tensor(_labels((ids, turns))[1:]))
    return torch.nn.functional.cross_entropy(torch.cat(outputs), torch.cat(targets), ignore_index=-100)


def _gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) > 20
    return found


@pytest.mark.parametrize("pad", [pad_right, pad_left])
@recipes
@backends
def test_loss_and_logits_of_a_batch(zoo: Zoo, backend: str, recipe: str, pad: Any) -> None:
    model, oracle, inputs = (
        zoo.model(backend=backend, **RECIPES[recipe]),
        zoo.oracle(**RECIPES[recipe]),
        _batch(ROWS, pad),
    )
    with torch.no_grad():
        output = model(**inputs)
    assert_close(output.loss, _expected_loss(oracle, ROWS))
    for logit, (ids, turns), real in zip(output.logits, ROWS, inputs["attention_mask"].bool(), strict=True):
        assert_close(logit[real], oracle.logits(ids, _dense(turns, oracle.fa_tail)))


@pytest.mark.parametrize("family", FAMILIES)
def test_families(zoo: Zoo, family: str) -> None:
    with torch.no_grad():
        loss = zoo.model(family)(**_batch(ROWS)).loss
    assert_close(loss, _expected_loss(zoo.oracle(family), ROWS))


@recipes
def test_gradients(zoo: Zoo, recipe: str) -> None:
    oracle = zoo.oracle(**RECIPES[recipe])
    oracle.stock = copy.deepcopy(oracle.stock)
    _expected_loss(oracle, ROWS).backward()
    expected = _gradients(oracle.stock)
    for backend in ("eager", "sdpa"):
        model = copy.deepcopy(zoo.model(backend=backend, **RECIPES[recipe])).train()
        model(**_batch(ROWS)).loss.backward()
        for name, gradient in _gradients(model).items():
            assert_close(gradient, expected[name], 1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "no FA decode"])
def test_gradient_checkpointing(zoo: Zoo, recipe: str, reentrant: bool) -> None:
    """Layers are run a second time, with the same state."""
    gradients = []
    for checkpointed in (False, True):
        model = copy.deepcopy(zoo.model(**RECIPES[recipe])).train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()
        model(**_batch(ROWS)).loss.backward()
        gradients.append(_gradients(model))
    for name, gradient in gradients[1].items():
        assert_close(gradient, gradients[0][name], 1e-6)


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed", "every layer windowed, dense tail"])
@backends
def test_packed_labels(zoo: Zoo, backend: str, recipe: str) -> None:
    """Sequences with turns of their own in one row; a dense tail doesn't reach into the one before."""
    oracle = zoo.oracle(**RECIPES[recipe])
    rows = [*ROWS, (prompt(30, 5), [range(1, 10)])]
    inputs = {
        "input_ids": torch.tensor([sum((ids for ids, _ in rows), [])]),
        "labels": torch.tensor([sum((_labels(row) for row in rows), [])]),
        "position_ids": torch.tensor([[n for ids, _ in rows for n in range(len(ids))]]),
    }
    actual = logits(zoo.model(backend=backend, **RECIPES[recipe]), **inputs)[0]
    for ids, turns in rows:
        part, actual = actual[: len(ids)], actual[len(ids) :]
        assert_close(part, oracle.logits(ids, _dense(turns, oracle.fa_tail)))


def test_labels_may_be_passed_by_place(zoo: Zoo) -> None:
    inputs = _batch(ROWS)
    model = zoo.model()
    with torch.no_grad():
        by_name = model(**inputs).loss
        by_place = model(inputs["input_ids"], inputs["attention_mask"], None, None, None, inputs["labels"]).loss
    assert torch.equal(by_name, by_place)


def test_without_labels_everything_is_prompt(zoo: Zoo) -> None:
    ids = prompt(90)
    assert_close(logits(zoo.model(), [ids])[0], zoo.oracle().logits(ids))


@pytest.mark.parametrize("recipe", ["interleaved", "every layer windowed"])
def test_attention_dropout(zoo: Zoo, recipe: str) -> None:
    """It is applied in windowed layers, in training only."""
    for backend in ("eager", "sdpa"):
        model = copy.deepcopy(zoo.model(backend=backend, **RECIPES[recipe]))
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        ids = [prompt(90)]
        assert torch.equal(logits(model, ids), logits(zoo.model(backend=backend, **RECIPES[recipe]), ids))
        model.train()
        assert not torch.equal(logits(model, ids), logits(model, ids))


def test_bfloat16(zoo: Zoo) -> None:
    model = load(zoo.repo(), dtype=torch.bfloat16).train()
    loss = model(**_batch(ROWS)).loss
    loss.backward()
    assert loss.isfinite() and (loss - _expected_loss(zoo.oracle(), ROWS)).abs() < 0.1 * loss


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_trainer_step(zoo: Zoo, tmp_path: Path, checkpointed: bool) -> None:
    """One step on a batch of two, saved and loaded again."""
    rows = ROWS[:2]
    batch = _batch(rows)
    dataset = [{name: values[n] for name, values in batch.items()} for n in range(2)]
    model = load(zoo.repo())
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        gradient_checkpointing=checkpointed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
    loss = trainer.train().training_loss
    assert_close(torch.tensor(loss), _expected_loss(zoo.oracle(), rows).detach(), 1e-4)
    trainer.save_model(str(tmp_path / f"trained_{checkpointed}"))
    again = load(tmp_path / f"trained_{checkpointed}")
    ids = [prompt(80)]
    assert torch.equal(logits(again, ids), logits(model.eval(), ids))
    assert not torch.equal(logits(again, ids), logits(zoo.model(), ids))
