"""Training batches for the demo checkpoint, drawn on the device that trains it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from swaa_convert.demo import task
from swaa_convert.demo.words import FIRST_WORD, VOCABULARY

# What the model says when it answers directly, and when it thinks first.
REPLIES = (task.ANSWER, task.THINKING + " " + task.ANSWER)
FIXED_WORD = 2


@dataclass(frozen=True)
class Batch:
    """Token ids [B, T]; the columns that are learned [B, U], and of which kind each is [B, U].

    The kind is the mode (0 direct, 1 thinking) where a surname is to be found, and FIXED_WORD elsewhere.
    """

    ids: torch.Tensor
    columns: torch.Tensor
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
        columns = torch.arange(self.half, 2 * self.half, device=once.device).expand(self.rows, -1)
        return Batch(torch.cat([once, once], 1), columns, torch.ones_like(columns))


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
        plans = [learned(self, first, str(sampler.device)) for first in (0, 1)]
        return Batch(
            torch.cat([conversations(sampler, self, half, first) for first in (0, 1)]),
            torch.cat([columns.expand(half, -1) for columns, _ in plans]),
            torch.cat([kinds.expand(half, -1) for _, kinds in plans]),
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
def learned(layout: Layout, first: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns [U] of `conversations` that are learned, and their kinds [U].

    Cached, because a CUDA graph cannot hold a copy from the host.
    """
    columns: list[int] = []
    kinds: list[int] = []
    end = layout.lines * task.LINE
    for turn in range(layout.questions):
        mode = (first + turn) % 2
        reply = task.split(REPLIES[mode])
        end += task.overhead(thinking=mode == 1)
        columns += range(end, end + len(reply))
        kinds += [mode if word == "{surname}" else FIXED_WORD for word in reply]
        end += len(reply) + 1
    return torch.tensor(columns, device=device), torch.tensor(kinds, device=device)
