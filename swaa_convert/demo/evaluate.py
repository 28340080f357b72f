"""Converts the demo checkpoint under each recipe and counts right answers to fresh prompts, really generated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swaa_convert.convert import convert_checkpoint
from swaa_convert.demo import task
from swaa_convert.demo.recipes import Contender
from swaa_convert.inspect.figures import attention_work

MODES = ("direct", "thinking")
# Prompts that are generated for at once.
BATCH = 32


@dataclass(frozen=True)
class Exam:
    """The prompts of one run: `samples` of them, each of about `length` tokens."""

    length: int
    samples: int
    seed: int

    def prompts(self) -> list[task.Prompt]:
        return task.prompts(self.samples, self.length, self.seed)


@dataclass(frozen=True)
class Score:
    """Shares from 0 to 1: right answers per mode, and attention work relative to full attention."""

    contender: Contender
    direct: float
    thinking: float
    work: float


def measure(checkpoint: Path, contender: Contender, exam: Exam, workspace: Path, advance: Callable[[], None]) -> Score:
    """Convert `checkpoint` into `workspace`, load the result as any user would, and let it answer."""
    folder = checkpoint
    if contender.recipe is not None:
        folder = convert_checkpoint(checkpoint, workspace / contender.folder, contender.recipe)
    model, tokenizer = load(folder)
    found = {}
    for mode in MODES:
        found[mode] = accuracy(model, tokenizer, exam.prompts(), thinking=mode == "thinking")
        advance()
    return Score(contender, found["direct"], found["thinking"], work(folder, exam.length))


def load(folder: Path) -> tuple[Any, Any]:
    """Model, in float32, and tokenizer of a repo."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    # The demo has a progress bar of its own.
    disable_progress_bar()
    # The source has no code of its own to trust.
    remote = (folder / "swaa_recipe.yaml").exists()
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=remote, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)


def accuracy(model: Any, tokenizer: Any, prompts: list[task.Prompt], *, thinking: bool) -> float:
    """The share of prompts that are answered right."""
    right = 0
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        replies = generate(model, tokenizer, [prompt.message for prompt in batch], thinking=thinking)
        right += sum(prompt.is_answered_by(reply) for prompt, reply in zip(batch, replies, strict=True))
    return right / len(prompts)


def generate(model: Any, tokenizer: Any, messages: list[str], *, thinking: bool) -> list[str]:
    """The model's replies, greedily."""
    chats = [[{"role": "user", "content": message}] for message in messages]
    inputs = tokenizer.apply_chat_template(
        chats,
        add_generation_prompt=True,
        enable_thinking=thinking,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, max_new_tokens=reply_length(thinking) + 4, do_sample=False)
    return list(tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def reply_length(thinking: bool) -> int:
    """Tokens of a right reply."""
    return len(task.split(task.ANSWER)) + (len(task.split(task.THINKING)) if thinking else 0)


def work(folder: Path, length: int) -> float:
    """Query-key pairs for reading a prompt and replying with thinking, relative to full attention."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "swaa_config" not in config:
        return 1.0
    return attention_work(config["swaa_config"], config["num_hidden_layers"], length, reply_length(thinking=True))
