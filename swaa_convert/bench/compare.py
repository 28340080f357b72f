"""All variants at one prompt length: warmed up, then timed in turn, repeat by repeat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from swaa_convert.bench.measure import Run, measure, random_prompts
from swaa_convert.bench.memory import free, out_of_memory
from swaa_convert.bench.models import Contestant, first_line
from swaa_convert.bench.settings import Settings
from swaa_convert.errors import SwaaError

# The first decode steps compile kernels too: one for the first length of the cache, one for all others. A static cache
# has one length, which the number of tokens is part of.
_WARM_TOKENS = {"dynamic": 8, "static": 2**28}
Made = TypeVar("Made")


@dataclass
class Cell:
    """The runs of one variant at one prompt length, in tokens: the finished ones, if memory ran out in a later one."""

    length: int
    name: str
    runs: list[Run] = field(default_factory=list)
    out_of_memory: bool = False
    warm_up: Run | None = None


def steps(contestants: Sequence[Contestant], settings: Settings) -> int:
    """How many runs, warm-up included, there are at each length."""
    return len(contestants) * (settings.repeats + 1)


def compare(
    contestants: Sequence[Contestant], length: int, settings: Settings, advance: Callable[[], None]
) -> list[Cell]:
    """A cell for every contestant; `advance` is called after every run.

    Taking turns spreads a clock that drifts, or a neighbour's load, over all of them.
    """
    vocabulary = min(contestant.model.config.vocab_size for contestant in contestants)
    where = f"prompt of {length:,} tokens"
    ids = _attempt(where, partial(random_prompts, vocabulary, settings.batch, length, settings.device))
    cells = [Cell(length, contestant.name, out_of_memory=ids is None) for contestant in contestants]
    for turn in range(settings.repeats + 1):
        new_tokens = settings.new_tokens if turn else min(settings.new_tokens, _WARM_TOKENS[settings.cache])
        for contestant, cell in zip(contestants, cells, strict=True):
            run = None
            if ids is not None and not cell.out_of_memory:
                work = partial(measure, contestant.model, ids, new_tokens, settings.cache)
                run = _attempt(f"{contestant.name}, {where}", work)
            cell.out_of_memory = run is None
            if run is None:
                # Here and not in the handler, whose traceback keeps the failed run's tensors alive.
                free(settings.device)
            elif turn:
                cell.runs.append(run)
            else:
                cell.warm_up = run
            advance()
    free(settings.device)
    return cells


def _attempt(where: str, work: Callable[[], Made]) -> Made | None:
    """What the work makes, or None if memory ran out."""
    try:
        return work()
    except Exception as error:
        if out_of_memory(error):
            return None
        raise SwaaError(f"{where}: {type(error).__name__}: {first_line(error)}") from error
