"""Where the time goes: one profiled prefill and a few decode steps, as shares of attention, linear, other and idle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from transformers.generation import StoppingCriteria
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from swaa_convert.bench.compare import Cell
from swaa_convert.bench.measure import Clock, generate, random_prompts
from swaa_convert.bench.memory import free, out_of_memory
from swaa_convert.bench.models import Contestant, first_line
from swaa_convert.bench.settings import Settings
from swaa_convert.bench.stats import figures
from swaa_convert.errors import SwaaError

STEPS = 4
# The first decode steps are not like the others.
_SKIPPED = 3
_PREFIX = "swaa_bench_"
# Kernels outside of every mark, by name; attention first, for its kernels are built from matrix products too.
_NAMES = (
    ("attention", re.compile(r"flex_attention|flash|fmha|sdpa|scaled_dot_product|cudnn.*(attn|attention)", re.I)),
    ("linear", re.compile(r"gemm|gemv|cutlass|nvjet|xmma|cublas|::(add)?(mm|bmm)$|::linear$", re.I)),
)


@dataclass(frozen=True)
class Span:
    """Something between two times, in microseconds."""

    name: str
    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True)
class Profile:
    """One phase ("prefill" or "decode"): seconds of it without the profiler, and shares of them from 0 to 1."""

    phase: str
    seconds: float
    shares: dict[str, float]


def shares(work: Sequence[Span], marks: Sequence[Span], wall: float) -> dict[str, float]:
    """Shares of `wall` microseconds that each kind of work took, and the idle rest.

    Work belongs to the innermost mark around it, and outside of all of them to what its name says. Pieces that
    overlap are counted once, in proportion.
    """
    totals = dict.fromkeys(("attention", "linear", "other"), 0.0)
    for span, kind in zip(work, _kinds(work, marks), strict=True):
        totals[kind] += span.end - span.start
    busy, total = _union(work), sum(totals.values())
    whole = max(wall, busy) or 1.0
    scale = busy / total / whole if total else 0.0
    return {kind: spent * scale for kind, spent in totals.items()} | {"idle": 1 - busy / whole}


def _kinds(work: Sequence[Span], marks: Sequence[Span]) -> list[str]:
    """The kind of each piece of work."""
    waiting = sorted(marks, key=lambda mark: mark.start, reverse=True)
    around: list[Span] = []
    found: dict[int, str] = {}
    for index in sorted(range(len(work)), key=lambda index: work[index].middle):
        middle = work[index].middle
        while waiting and waiting[-1].start <= middle:
            around.append(waiting.pop())
        around = [mark for mark in around if mark.end >= middle]
        found[index] = around[-1].name.removeprefix(_PREFIX) if around else _named(work[index].name)
    return [found[index] for index in range(len(work))]


def _named(name: str) -> str:
    return next((kind for kind, pattern in _NAMES if pattern.search(name)), "other")


def _union(spans: Sequence[Span]) -> float:
    """Time in which at least one of them runs."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        total += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return total


def profiled(contestant: Contestant, cell: Cell, settings: Settings) -> list[Profile]:
    """Both phases of a variant at the cell's length; empty if memory runs out."""
    found = figures(cell, settings.batch)
    if found is None or cell.out_of_memory:
        return []
    try:
        ids = random_prompts(contestant.model.config.vocab_size, settings.batch, cell.length, settings.device)
        with marked(contestant.model):
            prefill = _shares(_prefill(contestant.model, ids), ids.device, found.first.median)
            phases = [Profile("prefill", found.first.median, prefill)]
            if found.token is not None:
                decode = _shares(_decode(contestant.model, ids), ids.device, found.token.median * STEPS)
                phases.append(Profile("decode", found.token.median, decode))
            return phases
    except Exception as error:
        if isinstance(error, SwaaError):
            raise
        if not out_of_memory(error):
            raise SwaaError(f"--profile: {contestant.name}: {first_line(error)}") from error
    free(settings.device)
    return []


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Marks what attention and linear layers run, for as long as the block takes."""
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Linear) or type(module).__name__.endswith("Experts"):
                _mark_module(module, "linear", stack)
        for name in _interfaces(model, stack):
            _mark_interface(name, stack)
        yield


def _interfaces(model: nn.Module, stack: ExitStack) -> set[str]:
    """The attention functions that the layers call; `eager` is none, so its whole modules are marked."""
    names = set()
    for path, module in model.named_modules():
        if path.endswith("self_attn"):
            name = str(module.config._attn_implementation)
            if name in ALL_ATTENTION_FUNCTIONS:
                names.add(name)
            else:
                _mark_module(module, "attention", stack)
    return names


def _mark_module(module: nn.Module, kind: str, stack: ExitStack) -> None:
    running: list[ExitStack] = []

    def enter(*_: Any) -> None:
        running.append(ExitStack())
        running[-1].enter_context(record_function(_PREFIX + kind))

    def leave(*_: Any) -> None:
        running.pop().close()

    stack.callback(module.register_forward_pre_hook(enter).remove)
    stack.callback(module.register_forward_hook(leave).remove)


def _mark_interface(name: str, stack: ExitStack) -> None:
    function = ALL_ATTENTION_FUNCTIONS[name]

    @wraps(function)
    def marking(*args: Any, **kwargs: Any) -> Any:
        with record_function(_PREFIX + "attention"):
            return function(*args, **kwargs)

    # An entry of its own hides the registered one until it is deleted.
    own = ALL_ATTENTION_FUNCTIONS._local_mapping.get(name)
    ALL_ATTENTION_FUNCTIONS[name] = marking
    restore = ALL_ATTENTION_FUNCTIONS.__delitem__ if own is None else ALL_ATTENTION_FUNCTIONS.__setitem__
    stack.callback(restore, *((name,) if own is None else (name, own)))


def _prefill(model: Any, ids: Tensor) -> Any:
    with _profiler(ids.device) as profiler:
        generate(model, ids, 1, Clock(ids.device))
    return profiler


def _decode(model: Any, ids: Tensor) -> Any:
    window = _Window(ids.device)
    generate(model, ids, _SKIPPED + STEPS, window)
    return window.profiler


class _Window(StoppingCriteria):
    """Profiles the last STEPS tokens."""

    def __init__(self, device: torch.device) -> None:
        self.clock, self.profiler, self.count = Clock(device), _profiler(device), 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        never: Tensor = self.clock(input_ids, scores)
        self.count += 1
        if self.count == _SKIPPED:
            self.profiler.start()
        elif self.count == _SKIPPED + STEPS:
            self.profiler.stop()
        return never


def _profiler(device: torch.device) -> Any:
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    return profile(activities=activities, acc_events=True)


def _shares(profiler: Any, device: torch.device, seconds: float) -> dict[str, float]:
    return shares(*_spans(profiler.events(), device), 1e6 * seconds)


def _spans(events: Any, device: torch.device) -> tuple[list[Span], list[Span]]:
    """(work, marks): a GPU's kernels, or on a CPU the operations that no other one called.

    The profiler also lays a mark over the kernels that were launched within it, which is the one that counts there.
    """
    if device.type != "cpu":
        events = [event for event in events if event.device_type.name != "CPU"]
        if not events:
            raise SwaaError("--profile: the profiler sees no kernels of this device (is CUPTI installed?)")
    marks = [event for event in events if event.name.startswith(_PREFIX)]
    work = [event for event in events if event.cpu_parent is None or event.cpu_parent.is_user_annotation]
    return [_span(event) for event in work if not event.is_user_annotation], [_span(event) for event in marks]


def _span(event: Any) -> Span:
    return Span(event.name, event.time_range.start, event.time_range.end)
