"""The few statistics that results are reported with.

Median and nearest-rank percentile are the textbook ones (Hyndman and Fan 1996, definition 1). The
spread is the pooled relative standard deviation: with k groups of n_i values each, the square root of
the sum of squared relative deviations from each group's mean over the sum of (n_i - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two. `values` is not empty."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def p95_nearest_rank(values: Sequence[float]) -> float:
    """The smallest value that at least 95 % of `values` do not exceed; below 20 values the largest."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(0.95 * len(ordered))) - 1]


def pooled_relative_spread(groups: Iterable[Sequence[float]]) -> float | None:
    """The pooled relative standard deviation of groups of positive values; None below one degree of freedom."""
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) < 2:
            continue
        mean = sum(group) / len(group)
        squares += sum((value / mean - 1) ** 2 for value in group)
        freedom += len(group) - 1
    return math.sqrt(squares / freedom) if freedom else None
