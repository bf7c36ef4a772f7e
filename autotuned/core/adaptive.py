"""Adaptive replicates: whether a cell that is up deserves another request (off by default).

A load weighs more than a request, so a cell is settled while it is up: no more requests once its
interval against the best says that it can win by less than half a tie, has won, or is a tie; more than
usual while that is open. Sequential, by the interval of `core/stats.py`; looking again and again makes the stated
confidence a little optimistic, which benchmarks/decisions.py shows in regret. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotuned.core import load
from autotuned.core.model import STAGE_CLIMB, Trial
from autotuned.core.pipeline import best_so_far
from autotuned.core.stats import pooled_spread, ratio

CONFIDENCE = 0.70
"""Of each look; chosen by simulation: higher asks for more requests and regrets no less."""


def enough(history: Sequence[Trial], figures: Sequence[float], usual: int, epsilon: float) -> bool:
    """True when a cell with these tokens per second so far, measured after `history`, is settled.

    `usual` is the number of replicates of a run that does not adapt; `epsilon` the width of a tie.
    The first cell, which the others are held against, always gets the usual number.
    """
    best = best_so_far(history)
    if best is None or len(figures) >= most(usual):
        return len(figures) >= usual
    yardstick = _figures(best)
    cells = [_figures(trial) for trial in history if trial.stage == STAGE_CLIMB]
    spread = pooled_spread([*cells, figures])
    if not figures or not yardstick:
        return len(figures) >= usual
    interval = ratio(yardstick, figures, spread, CONFIDENCE).interval
    if interval is None:  # too few figures to tell noise from difference
        return len(figures) >= usual
    low, high = interval
    return high < epsilon / 2 or low > epsilon or (low > -epsilon and high < epsilon)


def most(usual: int) -> int:
    """How many requests a cell gets that stays open: a third more than usual, at least one more.

    Beyond that the noise between two starts of a cell, which no request can tell, is what remains.
    """
    return usual + max(1, usual // 3)


def _figures(trial: Trial) -> list[float]:
    return load.figures(trial.replicates)
