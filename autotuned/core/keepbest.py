"""The keep-best rule of the hill climb: throughput first, TTFT breaks ties.

Depends on the order of the cells by contract: each cell is compared with the best so far only.
"""

from __future__ import annotations

import math

from autotuned.core.model import Trial


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
