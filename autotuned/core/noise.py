"""How far a machine's figures stray by themselves, and what of a difference that leaves standing.

Three questions. `enough`: does a cell that is up deserve another request? `of_run`: does the winner of a run stand clear of its runner-up, by the spread within the
run's own cells? `of_pairs`: what is the machine's own noise, by one cell (and its runner-up) started again
and again? A pair is `a b b a`, so that a drift in time falls on both alike; with one cell it is `a a`.
The method is that of `core/stats.py`; confidence is 90 %. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core import load
from autotuned.core.model import STAGE_CLIMB, Replicate, Trial
from autotuned.core.pipeline import best_so_far, wins
from autotuned.core.stats import (
    LEAST_FREEDOM,
    Ratio,
    Spread,
    p95_nearest_rank,
    pooled_spread,
    ratio,
    t_quantile,
)
from autotuned.documents.noise import (
    LeadDocument,
    MeasuredDocument,
    NoiseDocument,
    OrderDocument,
    ProbesDocument,
    TellsDocument,
    Verdict,
)
from autotuned.shared.knobs import Knobs

CONFIDENCE = 0.90
TOLERATED_MISMATCHES = 1
"""So many pairs may come to another winner in reverse order; with more the order decides, not the cells."""
EACH_LOOK = 0.70
"""The confidence of each look at a cell that is up; chosen by simulation: higher asks for more and regrets no less."""
COUNTS = (1, 3, 5, 10)
"""Replicates a cell for which the smallest difference is told."""
TIES = ("tie", "runner-up is faster")
"""Verdicts by which the winner was not chosen for its speed."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Which measurement it was: the run that did it, the run whose cells it repeated, and when."""

    run_id: str
    of_run: str
    at: str


def layout(winner: Knobs, runner_up: Knobs | None) -> tuple[Knobs, ...]:
    return (winner, winner) if runner_up is None else (winner, runner_up, runner_up, winner)


def of_run(history: Sequence[Trial]) -> NoiseDocument:
    """The spread within the cells of a tuning run, and whether its best cell stands clear."""
    cells = [trial for trial in history if trial.stage == STAGE_CLIMB]
    spread = pooled_spread([load.tps_of(trial) for trial in cells])
    if not spread.freedom:
        return {}
    known: NoiseDocument = {
        "tps_relative_spread": round(spread.relative, 6),
        "degrees_of_freedom": spread.freedom,
    }
    best = best_so_far(history)
    second = runner_up(history)
    if best is None or second is None or second.knobs is None:
        return known
    lead = _lead(load.tps_of(best), load.tps_of(second), spread)
    known["runner_up"] = second.knobs.published()
    if lead is not None:
        known["lead"] = lead
    return known


def runner_up(history: Sequence[Trial]) -> Trial | None:
    """The fastest feasible cell beside the best one."""
    best = best_so_far(history)
    others = [
        trial
        for trial in history
        if trial.stage == STAGE_CLIMB and trial.fits and trial is not best and load.tps_of(trial)
    ]
    return max(others, key=lambda trial: trial.tps_median or 0.0, default=None)


def of_pairs(
    history: Sequence[Trial],
    pair: Sequence[Knobs],
    gate_ttft_ms: float,
    epsilon: float,
    which: Measurement,
) -> MeasuredDocument:
    """What the starts of a measurement tell; `history` may end in the middle of a pair."""
    starts = [trial for trial in history if trial.stage == STAGE_CLIMB]
    cells = list(dict.fromkeys(pair))
    good = [
        [t for t in starts if t.knobs == knobs and t.fits and load.tps_of(t)] for knobs in cells
    ]
    medians = [[trial.tps_median or 0.0 for trial in group] for group in good]
    between = pooled_spread(medians)
    within = pooled_spread([load.tps_of(trial) for group in good for trial in group])
    means = [sum(group) / len(group) if group else 0.0 for group in medians]
    replicates = max((trial.waves_n for trial in starts), default=0)
    smallest = _smallest(between)
    lead = _lead(medians[0], medians[1], between) if len(cells) > 1 and all(medians) else None
    blocks = [starts[at : at + len(pair)] for at in range(0, len(starts), len(pair))]
    whole = [block for block in blocks if len(block) == len(pair) and all(t.fits for t in block)]
    return {
        "run_id": which.run_id,
        "of_run": which.of_run,
        "at": which.at,
        "pairs": len(whole),
        "confidence": CONFIDENCE,
        "replicates": replicates,
        "knobs": [knobs.published() for knobs in cells],
        "tps": means,
        "request_spread": within.relative if within.freedom else None,
        "start_spread": between.relative if between.freedom else None,
        "degrees_of_freedom": between.freedom,
        "smallest_difference": smallest,
        "smallest_difference_tps": None if smallest is None else smallest * means[0],
        "tells": _tells(between, within, replicates),
        "probes": _probes(starts, cells, gate_ttft_ms),
        "order": _order(whole, epsilon),
        "lead": lead,
    }


def enough(history: Sequence[Trial], figures: Sequence[float], usual: int, epsilon: float) -> bool:
    """True when a cell with these tokens per second so far, measured after `history`, is settled.

    A load weighs more than a request, so with adaptive replicates (off by default) no more are asked for once
    the cell's interval against the best says that it can win by less than half a tie, has won, or is a tie;
    more than usual while that is open. Looking again and again makes the stated confidence a little
    optimistic, which benchmarks/decisions.py shows in regret. `usual` is the number of replicates of a run
    that does not adapt. The first cell, which the others are held against, always gets it.
    """
    best = best_so_far(history)
    yardstick = [] if best is None else load.tps_of(best)
    if not figures or not yardstick or len(figures) >= most(usual):
        return len(figures) >= usual
    cells = [load.tps_of(trial) for trial in history if trial.stage == STAGE_CLIMB]
    interval = ratio(yardstick, figures, pooled_spread([*cells, figures]), EACH_LOOK).interval
    if interval is None:  # too few figures to tell noise from difference
        return len(figures) >= usual
    low, high = interval
    return high < epsilon / 2 or low > epsilon or (low > -epsilon and high < epsilon)


def most(usual: int) -> int:
    """How many requests a cell gets that stays open: a third more than usual, at least one more.

    Beyond that the noise between two starts of a cell, which no request can tell, is what remains.
    """
    return usual + max(1, usual // 3)


def _lead(winner: Sequence[float], second: Sequence[float], spread: Spread) -> LeadDocument | None:
    if not winner or not second:
        return None
    found = ratio(second, winner, spread, CONFIDENCE)
    low, high = found.interval or (None, None)
    return {"relative": found.relative, "low": low, "high": high, "verdict": _verdict(found)}


def _verdict(found: Ratio) -> Verdict:
    if found.differs is None:
        return "cannot tell"
    if not found.differs:
        return "tie"
    return "clear" if found.relative > 0 else "runner-up is faster"


def _smallest(between: Spread) -> float | None:
    """Two cells, one start each: what their difference must exceed."""
    if between.freedom < LEAST_FREEDOM:
        return None
    return t_quantile(CONFIDENCE, between.freedom) * math.sqrt(2) * between.relative


def _tells(between: Spread, within: Spread, replicates: int) -> list[TellsDocument]:
    """The same for other numbers of replicates: what starts add to the spread of requests stays."""
    if between.freedom < LEAST_FREEDOM or not replicates:
        return []
    of_starts = max(0.0, between.relative**2 - within.relative**2 / replicates)
    found: list[TellsDocument] = []
    for count in COUNTS:
        spread = Spread(math.sqrt(of_starts + within.relative**2 / count), between.freedom)
        found.append({"replicates": count, "relative": _smallest(spread) or 0.0})
    return found


def _probes(starts: Sequence[Trial], cells: Sequence[Knobs], gate_ttft_ms: float) -> ProbesDocument:
    """The first request of each start as if it had been the only one."""
    fits = {
        knobs: _passes([r for t in starts if t.knobs == knobs for r in t.replicates], gate_ttft_ms)
        for knobs in cells
    }
    shots = [
        (t.knobs, _passes(t.replicates[:1], gate_ttft_ms))
        for t in starts
        if t.knobs in fits and t.replicates
    ]
    unfit = [said for knobs, said in shots if not fits[knobs]]
    fit = [said for knobs, said in shots if fits[knobs]]
    false_fits, false_rejects = sum(unfit), len(fit) - sum(fit)
    return {
        "count": len(shots),
        "false_fits": false_fits,
        "false_fit_rate": false_fits / len(unfit) if unfit else None,
        "false_rejects": false_rejects,
        "false_reject_rate": false_rejects / len(fit) if fit else None,
    }


def _passes(replicates: Sequence[Replicate], gate_ttft_ms: float) -> bool:
    """The gate's rule for the time to the first token: one in twenty may stray beyond it."""
    ttft = [math.inf if r.error is not None or r.ttft_ms is None else r.ttft_ms for r in replicates]
    return bool(ttft) and p95_nearest_rank(ttft) <= gate_ttft_ms


def _order(pairs: Sequence[Sequence[Trial]], epsilon: float) -> OrderDocument:
    mismatching = sum(1 for pair in pairs if _mismatches(pair, epsilon))
    later = [_later(pair) for pair in pairs]
    middle = sum(later) / len(later) if later else None
    reach = None
    if middle is not None and len(later) > LEAST_FREEDOM:
        variance = sum((value - middle) ** 2 for value in later) / (len(later) - 1)
        reach = t_quantile(CONFIDENCE, len(later) - 1) * math.sqrt(variance / len(later))
    return {
        "pairs": len(pairs),
        "mismatching": mismatching,
        "tolerated": TOLERATED_MISMATCHES,
        "biased": mismatching > TOLERATED_MISMATCHES,
        "later": None if middle is None else math.expm1(middle),
        "later_low": None if middle is None or reach is None else math.expm1(middle - reach),
        "later_high": None if middle is None or reach is None else math.expm1(middle + reach),
    }


def _mismatches(pair: Sequence[Trial], epsilon: float) -> bool:
    """True when the reverse order comes to another winner; of one cell: when it beats itself."""
    decided = [
        second if wins(second, first, epsilon) else first
        for first, second in zip(pair[::2], pair[1::2], strict=True)
    ]
    if len(decided) == 1:
        first, second = (trial.tps_median or 0.0 for trial in pair)
        return abs(second / first - 1) > epsilon
    return decided[0].knobs != decided[1].knobs


def _later(pair: Sequence[Trial]) -> float:
    """The logarithm of second against first; over both orders what the cells differ by falls out."""
    steps = [
        math.log((second.tps_median or 1.0) / (first.tps_median or 1.0))
        for first, second in zip(pair[::2], pair[1::2], strict=True)
    ]
    return sum(steps) / len(steps)
