"""What several requests at once come to: waves out of streams, and the figures of a wave.

A wave is one replicate. A request alone is a wave of one: its figures are its own. Pure.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from autotuned.core.model import Replicate, Trial
from autotuned.core.stats import p95_nearest_rank
from autotuned.documents.trial import LoadDocument, PointDocument

SKEW_LIMIT_MS = 5.0
"""Requests of one wave that were sent further apart were hardly sent at once."""


def waves(replicates: Sequence[Replicate]) -> list[list[Replicate]]:
    """The streams wave by wave, in the order in which they were measured."""
    keyed = ((one.wave or -number, one) for number, one in enumerate(replicates, start=1))
    return [
        [one for _, one in group] for _, group in itertools.groupby(keyed, lambda pair: pair[0])
    ]


def aggregate_tps(wave: Sequence[Replicate]) -> float | None:
    """All tokens of a wave, over the time from its first request to the end of its last stream."""
    if any(one.error is not None or one.tps is None for one in wave):
        return None
    if len(wave) == 1:
        return wave[0].tps
    return sum(one.completion_tokens or 0 for one in wave) / took_ms(wave) * 1000


def took_ms(wave: Sequence[Replicate]) -> float:
    """From a wave's first request to the end of its last stream."""
    return max((one.sent_ms or 0.0) + (one.total_ms or 0.0) for one in wave)


def figures(replicates: Sequence[Replicate]) -> list[float]:
    """Tokens per second of each whole wave: what the median is taken of."""
    each = (aggregate_tps(wave) for wave in waves(replicates))
    return [tps for tps in each if tps is not None]


def tps_of(*trials: Trial) -> list[float]:
    """The figures of all these trials."""
    return [tps for trial in trials for tps in figures(trial.replicates)]


def ttft_p95_ms(wave: Sequence[Replicate]) -> float | None:
    """Of the streams that were not cut short; None without any."""
    times = [one.ttft_ms for one in wave if one.error is None and one.ttft_ms is not None]
    return p95_nearest_rank(times) if times else None


def late_allowed(streams: int, done: Sequence[Replicate], gate_ms: float) -> int:
    """How many of the streams to come, of `streams` in all, may miss the gate without the p95 missing it."""
    late = sum(1 for one in done if (one.ttft_ms or 0.0) > gate_ms)
    return max(0, streams - math.ceil(0.95 * streams - 1e-9) - late)


def document(trial: Trial) -> LoadDocument:
    """What is published of a trial's load: nothing of requests one at a time."""
    found: LoadDocument = {}
    if trial.itl_p50_ms is not None:
        found["itl_p50_ms"] = trial.itl_p50_ms
    if trial.itl_p95_ms is not None:
        found["itl_p95_ms"] = trial.itl_p95_ms
    if (share := fairness(trial)) is not None:
        found["fairness"] = share
    if (skew_ms := dispatch_skew_ms(trial)) is not None:
        found["dispatch_skew_ms"] = skew_ms
    return found


def point_document(trial: Trial) -> PointDocument:
    """The same, how many were in flight, and what a point calibrated."""
    found: PointDocument = {}
    if trial.concurrency > 1:
        found["concurrency"] = trial.concurrency
    if trial.calibrates is not None:
        found["calibrates"], found["confirms"] = trial.calibrates, trial.confirms
        found["context"] = trial.context or 0
    return {**found, **document(trial)}


def fairness(trial: Trial) -> float | None:
    """The slowest stream's share of the fastest one's tokens per second, in its worst wave."""
    shares = []
    for wave in waves(trial.replicates):
        rates = [one.tps for one in wave if one.error is None and one.tps]
        if len(wave) > 1 and len(rates) == len(wave):
            shares.append(min(rates) / max(rates))
    return min(shares, default=None)


def dispatch_skew_ms(trial: Trial) -> float | None:
    """The longest time between the first and the last request of a wave being sent; None for single ones."""
    return max((one.sent_ms for one in trial.replicates if one.sent_ms is not None), default=None)


def skew_warning(history: Sequence[Trial]) -> list[str]:
    """Where requests that should have been sent at once were not."""
    worst = max((dispatch_skew_ms(trial) or 0.0 for trial in history), default=0.0)
    if worst <= SKEW_LIMIT_MS:
        return []
    return [
        f"requests of one wave were sent {worst:.1f} ms apart: this machine was too busy to send them at once"
    ]
