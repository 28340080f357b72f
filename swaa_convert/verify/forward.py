"""A forward pass with the real weights, under the code that this version ships: no file of the repo is run."""

from typing import Any

import torch

from swaa_convert.check import check_repo, shipped_classes
from swaa_convert.errors import SwaaError
from swaa_convert.families import Family
from swaa_convert.quiet import silence
from swaa_convert.sizes import show_bytes
from swaa_convert.source import LocalSource
from swaa_convert.verify.checks import Check, Difference
from swaa_convert.verify.memory import free_memory

_NAME = "forward pass"
_TOKENS = 16
# Beside the weights: torch itself, activations and the logits of a few tokens.
_WORKING_SPACE = 1024**3


def check_forward(repo: LocalSource, family: Family) -> Check:
    """Whether the weights fit the model and give finite logits for a few tokens, on the CPU.

    Skipped where the weights need more memory than is free, or are packed for a quantizer.
    """
    try:
        structure = check_repo(repo.root)
    except SwaaError as error:
        return Check(_NAME, "the weights make no model", (Difference("weights", error.message),))
    if repo.read_json("config.json").get("quantization_config") is not None:
        return Check(_NAME, f"forward pass skipped: {structure}", skipped=True)
    weights = sum(size for name, size in repo.files.items() if name.endswith(".safetensors"))
    needed, free = weights + weights // 10 + _WORKING_SPACE, free_memory()
    if free is None or needed > free:
        there = "how much is free is not known" if free is None else f"{show_bytes(free)} are free"
        said = f"forward pass skipped: it needs {show_bytes(needed)} of memory, {there}"
        return Check(_NAME, said, skipped=True)
    return _run(repo, family)


def _run(repo: LocalSource, family: Family) -> Check:
    try:
        finite = _is_finite(repo, family)
    except Exception as error:
        # What transformers raises for weights or settings that it cannot run has no common class.
        what = f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return Check(_NAME, "fails", (Difference(_NAME, what),))
    if not finite:
        return Check(_NAME, "is not finite", (Difference(_NAME, "gives logits that are not finite"),))
    return Check(_NAME, "forward pass finite")


@torch.inference_mode()
def _is_finite(repo: LocalSource, family: Family) -> bool:
    with shipped_classes(family) as (config_class, model_class), silence():
        config: Any = config_class.from_pretrained(repo.root)
        model: Any = model_class.from_pretrained(
            repo.root,
            config=config,
            dtype="auto",
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
        )
        tokens = torch.arange(min(_TOKENS, config.vocab_size))[None]
        return bool(torch.isfinite(model.eval()(input_ids=tokens).logits).all())
