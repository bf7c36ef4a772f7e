"""How long a context and how many streams at once a chosen model serves usefully (stage 3).

Two pure folds over the points measured so far, in the order in which they were asked: whoever holds
them asks the same next point. A point passes where every request succeeds with its TTFT under the
ceiling; both predicates are monotone: nothing passes above a point that misses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

FINE_BELOW, FINE_QUANTUM, QUANTUM = 4_000, 256, 1_000
"""Contexts are told in steps of 1,000 tokens; below 4,000 a step is 256."""
STEPS_DOWN = 3
"""A confirmation that fails is tried so often one step below."""
POINTS = 7
"""Where TTFT decides, so many points find the largest concurrency up to 32; those left over narrow the knee."""
GAP = 3.0
"""A silence of so many usual distances between first tokens shows a queue for slots, not a slower server."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measured point; `value` is a context in tokens or a number of streams.

    `max_context`: what the server was started with. `never_served`: it failed before any request was
    answered, by its start or for want of memory. `in_time`: how many streams of the wave that decided
    had their first token under the ceiling; `queued`: then nothing came for much longer than before.
    """

    value: int
    passes: bool
    ttft_p95_ms: float | None = None
    tps: float | None = None
    reason: str | None = None
    max_context: int = 0
    confirms: bool = False
    never_served: bool = False
    in_time: int | None = None
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Measure this context (a prompt and its answer) on a server that was started with `max_context`.

    `confirms`: with a fresh start and as many replicates as a cell has.
    """

    context: int
    max_context: int
    confirms: bool = False


@dataclass(frozen=True, slots=True)
class ContextAnswer:
    """The largest useful context; None where not even the target passes. `bound`: the largest that was in question."""

    answer: int | None
    bound: int


@dataclass(frozen=True, slots=True)
class ContextBounds:
    """From the target to the most that may be asked for, in steps; `quantum` None is the usual step."""

    target: int
    bound: int
    quantum: int | None = None

    def quantum_at(self, context: int) -> int:
        return self.quantum or (FINE_QUANTUM if context < FINE_BELOW else QUANTUM)

    def at_most(self, context: float) -> int:
        """The largest context of the grid that is not above `context`; never below the target."""
        step = self.quantum_at(math.floor(context))
        return max(self.target, math.floor(context) // step * step)

    def above(self, context: int) -> int:
        step = self.quantum_at(context)
        return (context // step + 1) * step

    def below(self, context: int) -> int:
        return self.at_most(context - 1)


def next_context(bounds: ContextBounds, points: Sequence[Point]) -> Ask | ContextAnswer:
    """The next context to measure, or the answer.

    Doubles while points pass, then bisects; a server that does not even start with the upper bound is
    started with half of it. The answer is confirmed by a start of its own.
    """
    bound = bounds.at_most(bounds.bound)
    for point in points:
        if point.never_served and not point.confirms:
            if point.max_context <= bounds.target:
                return ContextAnswer(None, bound)
            bound = bounds.at_most(point.max_context / 2)
    answered = [point for point in points if not (point.never_served or point.confirms)]
    low = max((point.value for point in answered if point.passes), default=None)
    high = min((point.value for point in answered if not point.passes), default=math.inf)
    if low is None:
        if high <= bounds.target:
            return ContextAnswer(None, bound)
        return Ask(bounds.target, bound)
    top = max(low, bound)
    doubles = high > top
    value = min(bounds.above(2 * low - 1), top) if doubles else bounds.at_most((low + high) / 2)
    if value <= low:
        value = bounds.above(low)
    if low < value < high and value <= top:
        return Ask(value, top)
    return _confirm(bounds, bound, low, [point for point in points if point.confirms])


def _confirm(
    bounds: ContextBounds, bound: int, low: int, confirmations: Sequence[Point]
) -> Ask | ContextAnswer:
    value = low
    for point in confirmations:
        if point.passes:
            return ContextAnswer(point.value, bound)
        value = bounds.below(point.value)
        if value == point.value:
            return ContextAnswer(None, bound)
    if len(confirmations) > STEPS_DOWN:
        return ContextAnswer(None, bound)
    return Ask(value, value, confirms=True)


@dataclass(frozen=True, slots=True)
class ConcurrencyAnswer:
    """How many streams at once. `largest` None: not even one passes.

    `recommended`: the smallest measured number whose aggregate tok/s is within `min_gain` of the best.
    """

    largest: int | None
    recommended: int | None


def next_concurrency(
    ceiling: int, min_gain: float, ceiling_ms: float, points: Sequence[Point]
) -> int | ConcurrencyAnswer:
    """The next number of streams to measure, 1 to `ceiling`, or the answer.

    Never more than twice the largest that has passed: memory grows with the slots. TTFT that grows
    foretells where it crosses `ceiling_ms`; a wave that misses it tells how many were in time.
    """
    passed = sorted((point for point in points if point.passes), key=lambda point: point.value)
    missed = min(
        (point for point in points if not point.passes),
        key=lambda point: point.value,
        default=None,
    )
    low = passed[-1].value if passed else 0
    high = ceiling + 1 if missed is None else missed.value
    if missed is not None and missed.queued and missed.in_time is not None:
        high = min(high, max(low, largest_in_time(missed.in_time)) + 1)
    if low + 1 < high:
        return min(max(low + 1, _guess(low, high, ceiling_ms, passed, missed)), 2 * low or 1)
    answer = _answer(min_gain, passed)
    below = [point.value for point in passed if point.value < (answer.recommended or 0)]
    if below and answer.recommended and answer.recommended - below[-1] > 1 and len(points) < POINTS:
        return (below[-1] + answer.recommended) // 2
    return answer


def largest_in_time(streams: int) -> int:
    """Of how many streams the p95 by nearest rank is in time when so many of them are."""
    return math.floor(streams / 0.95 + 1e-9)


def _guess(
    low: int, high: int, ceiling_ms: float, passed: Sequence[Point], missed: Point | None
) -> int:
    halfway = high - 1 if missed is None else (low + high) // 2
    if missed is not None and (missed.in_time is None or largest_in_time(missed.in_time) > low):
        return halfway if missed.in_time is None else min(largest_in_time(missed.in_time), high - 1)
    foretold = _crossing(passed, ceiling_ms)
    if foretold is None or (missed is not None and foretold >= high):
        return halfway
    return min(foretold, high - 1)


def _crossing(passed: Sequence[Point], ceiling_ms: float) -> int | None:
    """The largest number that stays under the ceiling if TTFT goes on as between the last two points."""
    known = [(point.value, point.ttft_p95_ms) for point in passed if point.ttft_p95_ms is not None]
    if len(known) < 2:
        return None
    (fewer, sooner), (more, later) = known[-2:]
    if later <= sooner or _rank(more) == _rank(fewer):
        return None
    slope = (later - sooner) / (_rank(more) - _rank(fewer))
    rank = _rank(more) + (ceiling_ms - later) / slope
    return None if rank > _rank(4 * more) else max(more + 1, largest_in_time(math.floor(rank)))


def _rank(streams: int) -> int:
    """Which of so many streams, in the order of their first tokens, the p95 is."""
    return math.ceil(0.95 * streams - 1e-9)


def _answer(min_gain: float, passed: Sequence[Point]) -> ConcurrencyAnswer:
    if not passed:
        return ConcurrencyAnswer(None, None)
    best = max(point.tps or 0.0 for point in passed)
    enough = [point.value for point in passed if (point.tps or 0.0) >= (1 - min_gain) * best]
    return ConcurrencyAnswer(passed[-1].value, min(enough))


def is_queue(first_tokens_ms: Sequence[float], decided_ms: float) -> bool:
    """Whether streams waited for a slot: silence since the last first token, far longer than between those before."""
    times = sorted(first_tokens_ms)
    if len(times) < 2:
        return False
    usual = max(later - sooner for sooner, later in itertools.pairwise(times))
    return decided_ms - times[-1] > GAP * max(usual, times[0])
