"""FlexAttention on the CPU: the kernel alone, because stock full layers don't compile there for changing lengths."""

import shutil
import sys
from typing import Any

import pytest
import torch

from tests.support.embed import TORCH, Zoo, logits, one, pad_left, prompt

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention on a CPU needs a C++ compiler"),
    # Compiling warns about the machine and about torch's own code.
    pytest.mark.filterwarnings("ignore"),
]
WINDOWED: dict[str, Any] = {"full_layers": (), "window": 70, "keep_first": 5}


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Each test compiles for its own shape."""
    torch._dynamo.reset()


def _pair(zoo: Zoo, **recipe: Any) -> tuple[Any, Any]:
    return zoo.model(backend="flex_attention", **recipe), zoo.model(backend="eager", **recipe)


def _assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_lengths_that_are_no_multiple_of_the_block(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    ids = [prompt(300, 1), prompt(300, 2)]
    _assert_same(logits(flex, ids, dense_from=260), logits(eager, ids, dense_from=260))


def test_left_padded_rows(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    batch = pad_left([prompt(256), prompt(150)])
    real = batch["attention_mask"].bool()
    _assert_same(logits(flex, **batch)[real], logits(eager, **batch)[real])


def test_packed_rows(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    positions = torch.cat([torch.arange(100), torch.arange(40), torch.arange(160)])[None]
    ids = one(prompt(300))
    _assert_same(logits(flex, ids, position_ids=positions), logits(eager, ids, position_ids=positions))


def test_two_repos_in_one_process_share_no_kernel(zoo: Zoo) -> None:
    """The compiler takes functions of one name in equal files for one, whose windows then vary: a slower kernel."""
    names: list[str] = []
    for window in (70, 90):
        model = zoo.model(backend="flex_attention", **{**WINDOWED, "window": window})
        logits(model, [prompt(300)])
        flex = sys.modules[type(model).__module__.rpartition(".")[0] + ".swaa_flex"]
        names += [kernel.__name__ for kernel in flex._compiled.values()]
    assert len(set(names)) == len(names) >= 2


def test_a_backward_pass_is_refused(zoo: Zoo) -> None:
    flex, _ = _pair(zoo, **WINDOWED)
    with pytest.raises(NotImplementedError, match="no backward pass on the CPU"):
        flex(one(prompt(200)))


def test_a_prompt_of_many_blocks(zoo: Zoo) -> None:
    flex, eager = _pair(zoo, **WINDOWED)
    _assert_same(logits(flex, [prompt(900)]), logits(eager, [prompt(900)]))


def test_a_padded_turn_in_one_row(zoo: Zoo) -> None:
    """Padding may lie between the sinks of a row."""
    flex, eager = _pair(zoo, **{**WINDOWED, "keep_first": 100})
    mask = torch.ones(2, 700, dtype=torch.long)
    mask[1, 20:420] = 0
    options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    ids = [prompt(700, 1), prompt(700, 2)]
    _assert_same(logits(flex, ids, **options)[mask.bool()], logits(eager, ids, **options)[mask.bool()])


@pytest.mark.skipif(TORCH < (2, 7), reason="PyTorch 2.6 compiles for each length")
@pytest.mark.parametrize("kind", ["plain", "dense tail", "padded"])
def test_a_compiled_model_compiles_twice_for_many_lengths(zoo: Zoo, kind: str) -> None:
    model, graphs = zoo.model(backend="flex_attention", **WINDOWED), 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(model, backend=count)
    for length in range(200, 700, 60):
        options: dict[str, Any] = {"dense tail": {"dense_from": length - 20}}.get(kind, {})
        if kind == "padded":
            options = {"attention_mask": (torch.arange(length) >= length // 3).long()[None]}
        logits(compiled, one(prompt(length)), use_cache=False, **options)
    assert graphs <= 2
