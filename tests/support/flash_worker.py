"""Run by tests/embedded/test_gpu.py where a package of the name flash-attn is on the path: prints relative errors."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.embed import CACHE, Zoo, load, logits, one, pad_left, prompt

RECIPE: dict[str, Any] = {"window": 70, "keep_first": 5, "config": {"head_dim": 64}}


def main() -> None:
    zoo = Zoo(Path(tempfile.mkdtemp()))
    found = {}
    for name, recipe in {"interleaved": {}, "windowed": {"full_layers": ()}, "released": {"fa_decode": False}}.items():
        repo = zoo.repo(**RECIPE, **recipe)
        truth, stock, flash = _load(repo, "eager", torch.float32), _load(repo, "sdpa"), _load(repo, sys.argv[1])
        for kind, call in CALLS.items():
            if kind == "packed" and sys.argv[1] == "flash_attention_4" and name != "windowed":
                # Stock layers give flash-attn-4 a tensor for the longest sequence, where it must have a number.
                continue
            expected = call(truth)
            found[f"{name}, {kind}"] = [_error(call(model), expected) for model in (flash, stock)]
    print(json.dumps(found))


def _load(repo: Path, backend: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    return load(repo, backend, dtype=dtype).to("cuda")


def _plain(model: Any) -> Tensor:
    return logits(model, torch.tensor([prompt(400, 1), prompt(400, 2)]).cuda())


def _padded(model: Any) -> Tensor:
    batch = {name: tensor.cuda() for name, tensor in pad_left([prompt(400), prompt(150)]).items()}
    places = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return logits(model, **batch, position_ids=places)[batch["attention_mask"].bool()]


def _dense(model: Any) -> Tensor:
    return logits(model, one(prompt(400)).cuda(), dense_from=370)


def _packed(model: Any) -> Tensor:
    places = torch.cat([torch.arange(250), torch.arange(150)])[None]
    return logits(model, one(prompt(400)).cuda(), position_ids=places.cuda())


@torch.no_grad()
def _decoded(model: Any) -> Tensor:
    """A prompt and then tokens one by one, as `generate` runs them."""
    ids, cache, found = one(prompt(310)).cuda(), None, []
    for start, end in [(0, 300), *((place, place + 1) for place in range(300, 310))]:
        output = model(ids[:, start:end], use_cache=True, dense_from=300, **{CACHE: cache})
        cache = output[CACHE]
        found.append(output.logits)
    return torch.cat(found, dim=1)


CALLS = {"plain": _plain, "padded": _padded, "dense": _dense, "packed": _packed, "decoded": _decoded}


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.float() - expected.float()).norm() / expected.float().norm())


if __name__ == "__main__":
    main()
