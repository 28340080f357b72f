"""Medians, spreads and ratios of what was measured; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swaa_convert.bench.compare import Cell


@dataclass(frozen=True)
class Spread:
    """The median of some values, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        return cls(median(found), found[0], found[-1])

    @property
    def share(self) -> float:
        """Half the range, relative to the median."""
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True)
class Figures:
    """What a cell of runs says: times in seconds, rates in tokens per second over the batch, sizes in bytes.

    `token` and `token_rate` are None where a run generates one token only, `peak_bytes` where it isn't counted.
    """

    first: Spread
    token: Spread | None
    prompt_rate: float
    token_rate: float | None
    kv_bytes: int
    peak_bytes: int | None


def figures(cell: Cell, batch: int) -> Figures | None:
    """The figures of the cell's runs that finished; None if memory ran out before any did."""
    if not cell.runs:
        return None
    first = Spread.of(run.first for run in cell.runs)
    per_token = [run.per_token for run in cell.runs if run.per_token is not None]
    token = Spread.of(per_token) if per_token else None
    peaks = [run.peak_bytes for run in cell.runs if run.peak_bytes is not None]
    return Figures(
        first=first,
        token=token,
        prompt_rate=batch * cell.length / first.median,
        token_rate=batch / token.median if token else None,
        kv_bytes=max(run.kv_bytes for run in cell.runs),
        peak_bytes=max(peaks, default=None),
    )
