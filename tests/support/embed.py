"""Converted repos and loaded models for the tests of the embedded code, each made once per session."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from swaa_convert.convert import convert_checkpoint
from swaa_convert.recipe import Recipe
from tests.support.oracle import Oracle
from tests.support.sources import make_source

FAMILIES = ("qwen3", "qwen2", "qwen3_moe", "llama")
RECIPE: dict[str, Any] = {"window": 8, "keep_first": 2, "full_layers": (1, 3)}
PAD = 256
two_gpus = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])

# What is broken in the stock library, with its own models too.
early_exit_is_broken = VERSION == (5, 0)
drafts_onto_filled_caches_are_broken = VERSION > (5, 0)


# What versions from 5.24 on call the KV cache, in calls and in outputs.
CACHE = "cache" if VERSION >= (5, 24) else "past_key_values"


class Zoo:
    """Tiny sources, converted repos and models. What it hands out is shared: don't change it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[Any, Any] = {}

    def source(self, family: str = "qwen3", **config: Any) -> Path:
        """A tiny checkpoint of the family."""
        return self._once(("source", family, config), lambda: make_source(self._new(family), family, **config))

    def repo(self, family: str = "qwen3", config: dict[str, Any] | None = None, **recipe: Any) -> Path:
        """A source converted under `RECIPE` and what `recipe` changes of it."""
        source = self.source(family, **(config or {}))
        return self._once(("repo", source, recipe), lambda: convert(source, self._new(f"swaa_{family}"), **recipe))

    def model(self, family: str = "qwen3", backend: str = "sdpa", **recipe: Any) -> Any:
        """The converted repo's model."""
        repo = self.repo(family, **recipe)
        return self._once(("model", repo, backend), lambda: load(repo, backend))

    def stock(self, family: str = "qwen3", backend: str = "sdpa", **config: Any) -> Any:
        """The source's own model."""
        source = self.source(family, **config)
        return self._once(("stock", source, backend), lambda: load_stock(source, backend))

    def oracle(self, family: str = "qwen3", config: dict[str, Any] | None = None, **recipe: Any) -> Oracle:
        """The truth about the converted repo's model."""
        repo = self.repo(family, config=config, **recipe)
        return Oracle(self.stock(family, "eager", **(config or {})), swaa_config(repo))

    def _once(self, key: Any, make: Any) -> Any:
        key = repr(key)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _new(self, name: str) -> Path:
        # transformers shares code between local folders of the same name.
        return self.folder / f"{name}_{len(self._made)}"


def refused_if(broken: bool, error: type[Exception], match: str) -> AbstractContextManager[Any]:
    """For what this version of transformers computes wrongly, and SWAA must therefore refuse."""
    return pytest.raises(error, match=match) if broken else nullcontext()


def convert(source: Path, out: Path, **recipe: Any) -> Path:
    """What swaa-convert makes of the source."""
    return convert_checkpoint(source, out, Recipe(**{**RECIPE, **recipe}), check=False)


def load(repo: Path, backend: str | None = None, **options: Any) -> Any:
    """The repo's model, which never stops before it is told to."""
    model = AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True, attn_implementation=backend, **options)
    return _endless(model)


def load_stock(source: Path, backend: str | None = None) -> Any:
    """The source's model, as transformers loads it."""
    return _endless(AutoModelForCausalLM.from_pretrained(source, attn_implementation=backend))


def swaa_config(repo: Path) -> dict[str, Any]:
    """The repo's `swaa_config`."""
    return json.loads((repo / "config.json").read_text(encoding="utf-8"))["swaa_config"]


def prompt(length: int, seed: int = 0) -> list[int]:
    """Random tokens."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


def one(ids: list[int]) -> Tensor:
    """A batch of one sequence."""
    return torch.tensor([ids])


def pad_left(rows: list[list[int]]) -> dict[str, Tensor]:
    """A left-padded batch: input_ids and attention_mask."""
    return _pad(rows, lambda row, missing: missing + row)


def pad_right(rows: list[list[int]]) -> dict[str, Tensor]:
    """A right-padded batch: input_ids and attention_mask."""
    return _pad(rows, lambda row, missing: row + missing)


@torch.no_grad()
def logits(model: Any, input_ids: Any, **options: Any) -> Tensor:
    """Logits (batch, length, vocabulary) of a forward pass; input_ids: a tensor or a list of rows."""
    ids = torch.tensor(input_ids) if isinstance(input_ids, list) else input_ids
    return model(input_ids=ids, **_named(options)).logits


def greedy(model: Any, inputs: Any, new: int = 6, **options: Any) -> list[list[int]]:
    """The next `new` tokens of each row; inputs: one prompt, or what `pad_left` gives."""
    inputs = {"input_ids": one(inputs)} if isinstance(inputs, list) else dict(inputs)
    options = {"max_new_tokens": new, "do_sample": False, **options}
    output = model.generate(**inputs, **_named(options))
    skip = 0 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1]
    return output[:, skip:].tolist()


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """`past_key_values` under the name that this version has for it."""
    return {CACHE if name == "past_key_values" else name: value for name, value in options.items()}


def _pad(rows: list[list[int]], place: Any) -> dict[str, Tensor]:
    longest = max(len(row) for row in rows)
    ids = [place(row, [PAD] * (longest - len(row))) for row in rows]
    mask = [place([1] * len(row), [0] * (longest - len(row))) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _endless(model: Any) -> Any:
    # Tokens that don't exist: without any, prompt lookup fails before 5.20; a real pad token in a prompt is masked.
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 10_000, 10_001
    return model
