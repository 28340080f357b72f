"""Calls of one windowed layer's kernel, as the embedded model makes them, and what they must give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modeling.swaa_mask import Rule, Tokens, eager_attention, rule_mask
from modeling.swaa_state import SwaaState, dense_from_index, number_tokens, sequence_starts


@dataclass
class Case:
    """One call: `new` queries after `past` tokens. padding: padding tokens left of each row; packed: lengths of the
    sequences of a row; holes: indices that are padding; gap: the first and the last but one of a run of them in the
    last row; dense_from: index from which on queries are dense.
    """

    window: int = 70
    keep_first: int = 5
    new: int = 300
    past: int = 0
    batch: int = 1
    heads: int = 4
    kv_heads: int = 2
    dim: int = 32
    padding: Sequence[int] = ()
    packed: Sequence[int] = ()
    holes: Sequence[int] = ()
    gap: tuple[int, int] | None = None
    dense_from: int | None = None
    free_slots: int = 0
    backend: str = "sdpa"
    seed: int = 0
    values: dict[str, Any] = field(default_factory=dict)


class Call:
    """The tensors of a case, in float32 on `device`, and its reference."""

    def __init__(self, case: Case, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.case, self.device, self.dtype = case, torch.device(device), dtype
        self.rule = Rule(case.window, case.keep_first, fa_decode=case.dense_from is not None)
        total = case.past + case.new
        self.keys, aligned = self._tokens(total)
        self.queries = self.keys[case.past :]
        if case.dense_from is not None:
            self.queries.dense = dense_from_index(case.dense_from, case.past, case.new, self.device)
        self.state = SwaaState(
            case.backend, self.queries, self.keys, case.past, total, False, None, None, aligned and not case.packed
        )
        generator = torch.Generator().manual_seed(case.seed)
        shapes = [(case.heads, case.new)] + [(case.kv_heads, total + case.free_slots)] * 2
        # Laid out as projections are, (batch, length, heads, dim), and seen as the model sees them.
        states = [torch.randn(case.batch, n, h, case.dim, generator=generator) for h, n in shapes]
        self.query, self.key, self.value = (s.to(self.device, dtype).transpose(1, 2) for s in states)
        self.real = (self.queries.position >= 0).expand(case.batch, -1)

    def _tokens(self, total: int) -> tuple[Tokens, bool]:
        case = self.case
        if case.packed:
            # Rows are cut up differently.
            cuts = [case.packed, case.packed[::-1]][: case.batch]
            places = torch.stack([torch.cat([torch.arange(length) for length in cut]) for cut in cuts]).to(self.device)
            starts = sequence_starts(places)
            return Tokens(number_tokens(None, total, self.device) - starts, starts), True
        if not case.padding and not case.holes and case.gap is None:
            return Tokens(number_tokens(None, total, self.device)), True
        mask = torch.ones(case.batch, total, dtype=torch.long)
        for row, count in enumerate(case.padding):
            mask[row, :count] = 0
        for index in case.holes:
            mask[:, index] = 0
        if case.gap is not None:
            mask[-1, slice(*case.gap)] = 0
        return Tokens(number_tokens(mask, total, self.device)), False

    @property
    def scaling(self) -> float:
        return float(self.case.dim**-0.5)

    def run(self, kernel: Any, *states: Tensor) -> Tensor:
        """(batch, heads, new, dim) from a kernel with the arguments of `blocked_attention`."""
        query, key, value = states or (self.query, self.key, self.value)
        keys = self.state.keys_of(0, key.shape[2])
        result: Tensor = kernel(query, key, value, keys, self.state, self.rule, self.scaling)
        return result

    def mask(self) -> Tensor:
        """The rule, point by point: bool (1 or batch, new, keys)."""
        return rule_mask(self.queries, self.keys, self.rule)

    def expected(self, *states: Tensor) -> Tensor:
        """The eager reference, in float32, a few heads at a time."""
        query, key, value = (s.float() for s in states or (self.query, self.key, self.value))
        total, groups = self.keys.position.shape[1], self.case.heads // self.case.kv_heads
        mask = self.mask()[:, None]
        parts = [
            eager_attention(
                query[:, head * groups : (head + 1) * groups],
                key[:, head : head + 1, :total],
                value[:, head : head + 1, :total],
                mask,
                self.scaling,
            )[0]
            for head in range(self.case.kv_heads)
        ]
        return torch.cat(parts, dim=1)

    def error(self, actual: Tensor, expected: Tensor) -> float:
        """Of the real tokens, relative to the norm of what is expected."""
        rows = self.real[:, None, :, None]
        difference = torch.where(rows, actual.float() - expected, 0.0)
        return float(difference.norm() / torch.where(rows, expected, 0.0).norm())

    def gradients(self, attend: Any) -> list[Tensor]:
        """Of query, key and value, for a loss that weighs every real token's output differently."""
        states = [s.detach().clone().requires_grad_() for s in (self.query, self.key, self.value)]
        weights = torch.randn(self.query.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
        output = attend(*states).float()
        torch.where(self.real[:, None, :, None], output * weights, 0.0).sum().backward()
        return [s.grad.float() for s in states if s.grad is not None]


CASES: dict[str, Case] = {
    "plain": Case(),
    "whole blocks": Case(window=128, keep_first=128, new=512),
    "no sinks": Case(keep_first=0),
    "one sink": Case(keep_first=1, window=64),
    "sinks past the window": Case(window=33, keep_first=200, new=411),
    "window of one": Case(window=1, keep_first=0),
    "window past the prompt": Case(window=1000),
    "batch": Case(batch=3, new=257),
    "left-padded": Case(batch=3, padding=(0, 150, 299)),
    "padded by whole blocks": Case(batch=2, new=640, padding=(256, 128), window=128, keep_first=128),
    "holes": Case(holes=(3, 40, 41, 200), new=411),
    "packed": Case(packed=(130, 1, 200, 69), new=400),
    "packed rows": Case(packed=(130, 1, 200, 69), new=400, batch=2),
    "padding between the sinks": Case(gap=(3, 330), new=411, batch=2),
    "a padded turn": Case(gap=(20, 620), keep_first=100, past=620, new=300, batch=2),
    "chunk": Case(past=411, new=200),
    "padded chunk": Case(past=400, new=200, batch=2, padding=(0, 350)),
    "chunk of padding": Case(past=100, new=300, batch=2, padding=(0, 250)),
    "dense tail": Case(dense_from=280),
    "dense tail of a chunk": Case(past=300, new=200, dense_from=450),
    "everything dense": Case(dense_from=0),
    "padded dense tail": Case(batch=2, padding=(0, 200), dense_from=290),
    "free slots": Case(free_slots=200, new=411),
    "free slots of a padded chunk": Case(past=200, new=200, free_slots=77, batch=2, padding=(0, 90)),
    "one head": Case(heads=1, kv_heads=1),
    "eight heads to a key": Case(heads=8, kv_heads=1, new=260),
}
