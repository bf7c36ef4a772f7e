"""The winner of a climb meets the defaults, and what the live provider runs: started in turns, then judged.

Each opponent is met in the order a-b-b-a, so that a drift of the machine falls on both alike. A side's
values are those of both its starts: how far starts differ is a part of the noise. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotuned.core import load
from autotuned.core.candidates import identity
from autotuned.core.model import STAGE_CLIMB, STAGE_CONFIRM, Replicate, Trial
from autotuned.core.plan import Plan
from autotuned.core.stats import median, p95_nearest_rank, pooled_spread, ratio, side
from autotuned.documents.result import ConfirmationDocument
from autotuned.shared.knobs import Knobs

CONFIDENCE = 0.95
VERDICTS = {1: "better", 0: "tie", -1: "worse"}
ORDER = (0, 1, 1, 0)
"""Which side each of the four starts is: 0 the winner, 1 its opponent."""


def opponents(plan: Plan, best: Trial) -> dict[str, Knobs]:
    """Whom the winner meets, the simplest first; none where the winner is that itself."""
    unset = tuple((name, None) for name in plan.request.axes)
    defaults = Knobs(None, 1, plan.request.target_context, unset)
    known = {"defaults": defaults}
    if plan.live_recipe is not None:
        model, live = plan.live_recipe
        if identity(model) == identity(best.model) and live.chosen() != defaults.chosen():
            known["live"] = live
    winner = {} if best.knobs is None else best.knobs.chosen()
    return {name: knobs for name, knobs in known.items() if knobs.chosen() != winner}


def next_knobs(plan: Plan, history: Sequence[Trial], best: Trial) -> Knobs | None:
    """What is started next; None once every opponent has been met."""
    starts = [trial for trial in history if trial.stage == STAGE_CONFIRM]
    met, turn = divmod(len(starts), len(ORDER))
    waiting = list(opponents(plan, best).values())[met:]
    if not waiting:
        return None
    return waiting[0] if ORDER[turn] else best.knobs


def confirmed(
    plan: Plan, history: Sequence[Trial], best: Trial
) -> tuple[Trial, ConfirmationDocument | None]:
    """What is recommended after all meetings, and the one that decided; None where there was none.

    One that beats the winner is recommended, else the simplest that ties with it, else the winner.
    """
    starts = [trial for trial in history if trial.stage == STAGE_CONFIRM]
    met: list[tuple[ConfirmationDocument, Trial]] = []
    for number, name in enumerate(opponents(plan, best)):
        four = starts[number * len(ORDER) : (number + 1) * len(ORDER)]
        if len(four) == len(ORDER):
            mine, theirs = (
                [trial for trial, place in zip(four, ORDER, strict=True) if place == side]
                for side in (0, 1)
            )
            meeting = judge(name, mine, theirs, plan.request.tps_tie_epsilon)
            met.append((meeting, _whole(theirs, history)))
    if not met:
        return best, None
    losses = [each for each in met if each[0]["verdict"] == "worse"]
    ties = [each for each in met if each[0]["verdict"] == "tie"]
    if losses:
        meeting, other = min(losses, key=lambda each: each[0]["difference"])
        return other, meeting
    if ties:
        meeting, other = ties[0]
        return other, meeting
    return best, met[0][0]


def judge(
    against: str, winner: Sequence[Trial], opponent: Sequence[Trial], epsilon: float
) -> ConfirmationDocument:
    """How much faster the winner is, relative. A difference within a tie's width, or within the noise, is a tie.

    A side that does not pass the gate in each of its starts has lost; where both do not, nobody has won.
    """
    knobs = opponent[0].knobs
    document: ConfirmationDocument = {
        "against": against,
        "knobs": {} if knobs is None else knobs.published(),
        "difference": 0.0,
        "interval": None,
        "verdict": "better",
    }
    if not all(trial.fits for trial in opponent):
        return document
    if not all(trial.fits for trial in winner):
        return {**document, "difference": -1.0, "verdict": "worse"}
    mine, theirs = load.tps_of(*winner), load.tps_of(*opponent)
    found = ratio(theirs, mine, pooled_spread([mine, theirs]), CONFIDENCE)
    low, high = found.interval or (found.relative, found.relative)
    return {
        **document,
        "difference": found.relative,
        "interval": None if found.interval is None else list(found.interval),
        "verdict": VERDICTS[side(found.relative, low, high, epsilon)],
    }


def words(winner: Knobs | None, document: ConfirmationDocument) -> list[str]:
    """Why another configuration than the winner of the climb is recommended; nothing where it is that one."""
    if document["verdict"] == "better":
        return []
    interval = document["interval"]
    by = f"{document['difference']:+.1%}"
    if interval is not None:
        by += f", {interval[0]:+.1%} to {interval[1]:+.1%}"
    who = "the defaults" if document["against"] == "defaults" else "what the live provider runs"
    came = "lost to" if document["verdict"] == "worse" else "is no faster than"
    return [f"started again in turns, {winner} {came} {who} ({by}), so that is recommended instead"]


def _whole(starts: Sequence[Trial], history: Sequence[Trial]) -> Trial:
    """The opponent as a trial: its own cell where the climb had one, else its starts together."""
    for trial in history:
        if trial.stage == STAGE_CLIMB and trial.knobs == starts[0].knobs and trial.fits:
            return trial
    replicates: tuple[Replicate, ...] = ()
    for start in starts:  # waves go on counting
        before = max((each.wave or 0 for each in replicates), default=0)
        replicates += tuple(
            each if each.wave is None else replace(each, wave=before + each.wave)
            for each in start.replicates
        )
    ttft = [each.ttft_ms for each in replicates if each.ttft_ms is not None]
    tps = load.tps_of(*starts)
    return replace(
        starts[0],
        replicates=replicates,
        tps_median=median(tps) if tps else None,
        ttft_p95_ms=p95_nearest_rank(ttft) if ttft else None,
    )
