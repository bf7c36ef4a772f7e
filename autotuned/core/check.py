"""Whether a recipe still serves as it did: one start now against the samples of its cell then. Pure.

The interval is that of `core/stats.py` by the spread of the requests of both, widened by how far two starts
of one cell differ on this machine, where that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotuned.core import load
from autotuned.core.model import STAGE_CLIMB, Trial
from autotuned.core.stats import median, pooled_spread, ratio, side, t_quantile
from autotuned.documents.result import CheckedDocument
from autotuned.shared.knobs import Knobs

CONFIDENCE = 0.97
"""Above the usual: the cell that was chosen then is likelier to have been lucky than not."""
OUTLIER = 0.15
"""A request further from its start's median was disturbed: it tells nothing of how far others stray."""
START_SPREAD = 0.012
"""Between two starts of one cell, where nobody has measured it on this machine."""
VERDICTS = {1: "faster", 0: "same", -1: "slower"}
WITHOUT_INTERVAL = 0.1
"""Too few values to know their spread: only a difference beyond this is one."""


def cell_of(history: Sequence[Trial], knobs: Knobs) -> Trial | None:
    """The trial whose samples stand for a recipe: its cell, the newest where there are several."""
    cells = [trial for trial in history if trial.knobs == knobs and trial.fits]
    return next((each for each in reversed(cells) if each.kept), cells[-1] if cells else None)


def judge(
    of_run: str,
    then: Trial,
    now: Trial,
    history: Sequence[Trial],
    start_spread: float | None,
    epsilon: float,
) -> CheckedDocument:
    """`history` are the trials of the run that is checked against; `start_spread` is relative."""
    before, after = load.tps_of(then), load.tps_of(now)
    document: CheckedDocument = {
        "of_run": of_run,
        "verdict": "fails",
        "difference": None,
        "interval": None,
        "tps_before": then.tps_median,
        "tps_median": now.tps_median,
        "ttft_p95_before_ms": then.ttft_p95_ms,
        "ttft_p95_ms": now.ttft_p95_ms,
        "reason": now.failure.reason if now.failure else None,
    }
    if now.failure is not None or not before or not after:
        return document
    cells = [trial for trial in history if trial.stage == STAGE_CLIMB or trial is then]
    groups = [load.tps_of(trial) for trial in cells]
    spread = pooled_spread([_undisturbed(group) for group in (*groups, after) if group])
    found = ratio(before, after, spread, CONFIDENCE)
    if found.interval is None:
        low, high = found.relative - WITHOUT_INTERVAL, found.relative + WITHOUT_INTERVAL
    else:
        middle = math.log1p(found.relative)
        within = middle - math.log1p(found.interval[0])
        starts = (
            (start_spread or START_SPREAD) * math.sqrt(2) * t_quantile(CONFIDENCE, spread.freedom)
        )
        reach = math.hypot(within, starts)
        low, high = math.expm1(middle - reach), math.expm1(middle + reach)
    return {
        **document,
        "verdict": VERDICTS[side(found.relative, low, high, epsilon)],
        "difference": found.relative,
        "interval": None if found.interval is None else [low, high],
    }


def _undisturbed(values: Sequence[float]) -> list[float]:
    middle = median(values)
    return [value for value in values if abs(value / middle - 1) <= OUTLIER]
