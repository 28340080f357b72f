"""Training batches for the demo checkpoint, drawn on the device that trains it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from swaa_convert.demo import task
from swaa_convert.demo.words import FIRST_WORD, VOCABULARY

# What the model says when it answers directly, and when it thinks first.
REPLIES = (task.ANSWER, task.THINKING + " " + task.ANSWER)
# Kinds of tokens, beside 0 and 1: surnames to be found directly and by thinking.
FIXED_WORD, NOT_LEARNED = 2, 3


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T] and of which kind each token is [B, T]."""

    ids: torch.Tensor
    kinds: torch.Tensor


@dataclass(frozen=True)
class CopyLayout:
    """Random text of `half` tokens that is repeated once; the whole second half is learned."""

    half: int
    rows: int

    @property
    def name(self) -> str:
        return f"copy {self.half}"

    def draw(self, sampler: task.Sampler) -> Batch:
        span = len(VOCABULARY) - FIRST_WORD
        once = FIRST_WORD + (sampler.uniform(self.rows, self.half) * span).long().clamp_(max=span - 1)
        kinds = torch.cat([torch.full_like(once, NOT_LEARNED), torch.ones_like(once)], 1)
        return Batch(torch.cat([once, once], 1), kinds)


@dataclass(frozen=True)
class Layout:
    """Diaries of that many lines, each with that many questions, which must be even; so must the rows."""

    lines: int
    questions: int
    rows: int

    @property
    def name(self) -> str:
        return f"{self.lines * task.LINE} tokens"

    def draw(self, sampler: task.Sampler) -> Batch:
        """In half of the rows the first question is asked directly, in the others with thinking."""
        half = self.rows // 2
        return Batch(
            torch.cat([conversations(sampler, self, half, first) for first in (0, 1)]),
            torch.cat([kinds(self, first, str(sampler.device)).expand(half, -1) for first in (0, 1)]),
        )


def conversations(sampler: task.Sampler, layout: Layout, rows: int, first: int) -> torch.Tensor:
    """Token ids [rows, T] of diaries whose questions alternate between the modes, from mode `first` on."""
    diary = sampler.diaries(rows, layout.lines)
    facts = diary.facts(sampler.picks(rows, diary.city.shape[1], layout.questions))
    pieces: list[torch.Tensor] = []
    for turn in range(layout.questions):
        slots = {slot: ids[:, turn] for slot, ids in facts.items()}
        mode = (first + turn) % 2
        templates = [task.QUESTION, task.REPLY, *([] if mode else [task.DIRECT]), REPLIES[mode], "\n"]
        pieces.append(task.fill(task.ASK, **slots))
        pieces += [diary.tokens] if turn == 0 else []
        pieces += [task.fill(template, **slots) for template in templates]
    return torch.cat(pieces, 1)


@functools.cache
def kinds(layout: Layout, first: int, device: str) -> torch.Tensor:
    """The kinds [T] of the tokens of `conversations`.

    Cached, because a CUDA graph cannot hold a copy from the host.
    """
    found = [NOT_LEARNED] * (layout.lines * task.LINE)
    for turn in range(layout.questions):
        mode = (first + turn) % 2
        found += [NOT_LEARNED] * task.overhead(thinking=mode == 1)
        found += [mode if word == "{surname}" else FIXED_WORD for word in task.split(REPLIES[mode])]
        found.append(NOT_LEARNED)
    return torch.tensor(found, device=device)
