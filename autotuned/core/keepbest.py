"""The keep-best rule of the hill climb: throughput first, TTFT breaks ties.

Depends on the order of the cells by contract: each cell is compared with the best so far only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuned.core import stats
from autotuned.core.model import STAGE_CLIMB, Trial


def wins(new: Trial, best: Trial | None, epsilon: float) -> bool:
    """True when `new` becomes the best. `epsilon` is the relative width of a tie in tokens per second."""
    if not new.fits or new.tps_median is None or not 0 < new.tps_median < math.inf:
        return False
    if best is None or best.tps_median is None:
        return True
    if new.tps_median > best.tps_median * (1 + epsilon):
        return True
    tie = abs(new.tps_median - best.tps_median) <= epsilon * best.tps_median
    return tie and _ttft(new) < _ttft(best)


def _ttft(trial: Trial) -> float:
    return math.inf if trial.ttft_p95_ms is None else trial.ttft_p95_ms


LENGTH_SHARE = 0.1
"""Answers that differ in length by more are not compared by end-to-end tokens per second without a word."""


def same_length(a: float | None, b: float | None) -> bool:
    """Whether answers of so many tokens may be compared end to end; one that is not known may be."""
    return a is None or b is None or abs(a - b) <= LENGTH_SHARE * max(a, b)


def answer_tokens(trial: Trial) -> float | None:
    """The median length of a trial's answers; None where there is none."""
    counts = [r.completion_tokens for r in trial.replicates if r.completion_tokens is not None]
    return stats.median(counts) if counts else None


def uneven_lengths(best: Trial, history: Sequence[Trial]) -> list[str]:
    """A warning where answers of other feasible cells are longer or shorter than those of the best cell.

    The end-to-end rate of a short answer is mostly prefill, so that it says little of a longer one.
    """
    wanted = answer_tokens(best)
    cells = [trial for trial in history if trial.stage == STAGE_CLIMB and trial.fits]
    others = sorted({answer_tokens(cell) or 0 for cell in cells})
    uneven = [f"{count:g}" for count in others if count and not same_length(wanted, count)]
    if not uneven:
        return []
    return [
        f"answers differ in length: {wanted:g} tokens in the best cell, {', '.join(uneven)} in others; "
        "end to end tok/s do not compare, set decode and prefill tok/s beside each other"
    ]
