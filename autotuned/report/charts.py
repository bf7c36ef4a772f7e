"""Axes of the charts: where a value stands across the width, in percent of it, and which round values are named.

The templates draw with them; they fill the width they get. Must not know documents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

EDGE = 2.5
"""Percent of the width that stay free at each side of dots, so that nothing is cut off."""
SECOND, MINUTE, HOUR = 1_000.0, 60_000.0, 3_600_000.0
TIME_STEPS = (
    *(factor * SECOND for factor in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * HOUR for factor in (1, 2, 4, 8)),
)
"""Steps of an axis of time in milliseconds: sixty is a round number there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar in milliseconds; `kind` is its colour's name."""

    kind: str
    start: float
    ms: float


@dataclass(frozen=True, slots=True)
class DotAxis:
    """Around the values with some air, never narrower than 4 % of them: equal values stay close together."""

    low: float
    high: float
    ticks: Sequence[float]

    def x(self, value: float) -> str:
        """Where a value stands."""
        return _percent(EDGE + (100 - 2 * EDGE) * (value - self.low) / (self.high - self.low))

    def edge(self, _tick: float) -> str:
        """No tick is near enough to an edge to be moved."""
        return ""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """From 0 to the end of a run."""

    whole: float
    ticks: Sequence[float]

    def x(self, value: float) -> str:
        """Where a moment stands."""
        return _percent(100 * value / self.whole)

    def edge(self, tick: float) -> str:
        """Ticks at the edges are set inwards."""
        return " first" if tick == 0 else " last" if tick > 0.94 * self.whole else ""

    def part(self, part: Part) -> tuple[str, str]:
        """Place and width of a piece of a bar, never too small to be seen."""
        start, width = 100 * part.start / self.whole, 100 * part.ms / self.whole
        return _percent(min(start, 99.7)), _percent(max(0.3, min(width, 100 - start)))


def dot_axis(values: Sequence[float]) -> DotAxis:
    """An axis for the values, of which there is at least one, with some three to six ticks."""
    low, high = min(values), max(values)
    air = max((high - low) * 0.12, abs(high) * 0.02, 1e-9)
    low, high = max(0.0, low - air) if low >= 0 else low - air, high + air
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    return DotAxis(low, high, _multiples(low, high, step))


def time_axis(whole: float) -> TimeAxis:
    """An axis for so many milliseconds."""
    raw = whole / 4
    step = next((step for step in TIME_STEPS if step >= raw), math.ceil(raw / HOUR) * HOUR)
    return TimeAxis(whole, _multiples(0, whole, step))


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _percent(value: float) -> str:
    return f"{value:.2f}%"
