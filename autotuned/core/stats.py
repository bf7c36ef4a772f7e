"""The few statistics that results are reported with.

Median and nearest-rank percentile are the textbook ones (Hyndman and Fan 1996, definition 1). The
spread is the pooled relative standard deviation: with k groups of n_i values each, the square root of
the sum of squared relative deviations from each group's mean over the sum of (n_i - 1) degrees of freedom.

Two medians are judged by an interval for their ratio (Kalibera and Jones 2013: report the size of the
effect with its interval, not a yes or no). A rank test of 3 values against 3 cannot reach 5 %, so the
spread is pooled over every cell that was measured on the machine, which gives it enough degrees of
freedom for Student's t. On the logarithmic scale the standard error of a mean of n values with relative
spread s is s / sqrt(n) (delta method); a median's is larger, at most by sqrt(pi / 2) for normal values,
and that bound is used. Student's t for whole degrees of freedom is the finite series of Abramowitz and
Stegun 1964, 26.7.3 and 26.7.4: exact, no tables.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST_FREEDOM = 2
"""Below this nothing is judged: Student's t with one degree of freedom has not even a mean."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A relative standard deviation, and from how many degrees of freedom it is known."""

    relative: float
    freedom: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """How much larger a second median is than a first, `relative` to the first, and its interval (low, high).

    `interval` is None where the spread is known from too few values to say.
    """

    relative: float
    interval: tuple[float, float] | None

    @property
    def differs(self) -> bool | None:
        """True when the interval leaves out 0, False for a tie, None when nobody can tell."""
        if self.interval is None:
            return None
        low, high = self.interval
        return low > 0 or high < 0


def side(relative: float, low: float, high: float, epsilon: float) -> int:
    """1 for a gain and -1 for a loss: its interval leaves out 0, and it is more than `epsilon`; else 0."""
    if low > 0 and relative > epsilon:
        return 1
    return -1 if high < 0 and relative < -epsilon else 0


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the middle two. `values` is not empty."""
    return statistics.median(values)


def p95_nearest_rank(values: Sequence[float]) -> float:
    """The smallest value that at least 95 % of `values` do not exceed; below 20 values the largest."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(0.95 * len(ordered))) - 1]


def pooled_spread(groups: Iterable[Sequence[float]]) -> Spread:
    """The pooled relative standard deviation of groups of positive values; 0 where no group has two."""
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) < 2:
            continue
        mean = sum(group) / len(group)
        squares += sum((value / mean - 1) ** 2 for value in group)
        freedom += len(group) - 1
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def ratio(a: Sequence[float], b: Sequence[float], spread: Spread, confidence: float) -> Ratio:
    """The median of `b` against that of `a`, both of positive values and not empty, with its interval."""
    relative = median(b) / median(a) - 1
    if spread.freedom < LEAST_FREEDOM:
        return Ratio(relative, None)
    error = spread.relative * math.sqrt(_variance(len(a)) + _variance(len(b)))
    reach = t_quantile(confidence, spread.freedom) * error
    middle = math.log1p(relative)
    return Ratio(relative, (math.expm1(middle - reach), math.expm1(middle + reach)))


def _variance(count: int) -> float:
    """The variance of the median of `count` values of unit variance, from above; one or two are their own mean."""
    return (1.0 if count <= 2 else math.pi / 2) / count


def t_quantile(confidence: float, freedom: int) -> float:
    """The t that |T| stays below with this probability (0 to 1), T with `freedom` >= 1 degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halving an angle: after 60 steps it is as exact as a float
        middle = (low + high) / 2
        if _t_probability(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.tan(low) * math.sqrt(freedom)


def _t_probability(angle: float, freedom: int) -> float:
    """P(|T| <= t) where tan(angle) = t / sqrt(freedom)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for index in range(1, freedom // 2 + 1):
        total += term
        step = 2 * index
        term *= cosine**2 * (step / (step + 1) if odd else (step - 1) / step)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
