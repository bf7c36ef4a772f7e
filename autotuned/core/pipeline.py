"""The whole objective on one page: which step comes next, given what has been tried.

The order of the candidates is the contract. The first feasible one is chosen, then its cells are
evaluated one after the other and the best is kept; where it is asked for, the best is calibrated. A pure fold over the history: whoever holds the
stored trials can go on from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from autotuned.core import confirm, quality, search
from autotuned.core.model import STAGE_CLIMB, STAGE_SELECTION, Candidate, FailureKind, Trial
from autotuned.core.plan import Plan
from autotuned.core.points import Calibrate, next_point, recipe, served
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs


class Halt(StrEnum):
    """Why a run ends before its search is complete."""

    CANCELLED = "cancelled"
    BUDGET = "budget"
    INTERNAL = "internal"
    CONFLICT = "conflict"
    """The live provider was brought back again and again."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Try this candidate with the binary's defaults (stage 1)."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Measure this cell of the chosen candidate (stage 2); `index` counts those before it."""

    candidate: Candidate
    index: int
    knobs: Knobs


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over. `best` is None where there is nothing to recommend; `partial`: steps were left out.

    `served`: the trial that was measured with the final knobs, where they were calibrated.
    """

    exit_reason: ExitReason
    chosen: Candidate | None = None
    best: Trial | None = None
    partial: bool = False
    served: Trial | None = None
    profiles: tuple[tuple[Plan, Finish], ...] = ()
    """How each target context ended, where a run has several; the first is this one's."""

    @property
    def final(self) -> Trial | None:
        """The trial whose knobs are to be served with; None where there is nothing to recommend."""
        return self.served or self.best

    @property
    def recipe(self) -> Knobs | None:
        return None if self.final is None else self.final.knobs


@dataclass(frozen=True, slots=True)
class Confirm:
    """Start this once more: the winner, or what it meets (stage 4)."""

    candidate: Candidate
    knobs: Knobs


Step = Probe | Evaluate | Confirm | Calibrate | Finish


def next_of(plan: Plan, history: Sequence[Trial], halt: Halt | None = None) -> tuple[Plan, Step]:
    """The next step, and the plan of the target context that it is for; contexts are answered one by one.

    The walk for a larger context begins at the candidate that was chosen for the smaller one; where
    there is none, nothing serves a larger one either.
    """
    first, *others = plan.parts()
    if not others:
        return plan, next_step(plan, history, halt)
    ended: list[tuple[Plan, Finish]] = []
    for part in (first, *others):
        chosen = ended[-1][1].chosen if ended else None
        part = replace(part, first_rank=1 if chosen is None else chosen.rank)  # noqa: PLW2901
        mine = of_part(part, history)
        step = next_step(part, mine)
        if not isinstance(step, Finish):
            if halt is None:
                return part, step
            probes = [trial for trial in mine if trial.stage == STAGE_SELECTION]
            step = _halted(halt, _chosen(part, probes), best_so_far(mine))
        ended.append((part, step))
        if step.exit_reason is not ExitReason.OK:
            break
    whole = ended[0][1]
    reason = ended[-1][1].exit_reason
    if reason in (ExitReason.NO_FEASIBLE, ExitReason.OK):  # a larger context may be too much
        reason = whole.exit_reason
    elif reason is ExitReason.BUDGET_NONE and whole.best is not None:
        reason = ExitReason.BUDGET_PARTIAL
    return first, replace(whole, exit_reason=reason, profiles=tuple(ended))


def of_part(part: Plan, history: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(trial for trial in history if trial.profile == part.profile)


def of_first(history: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials that are for the first, smallest, target context of their run."""
    first = min((trial.profile for trial in history if trial.profile is not None), default=None)
    return tuple(trial for trial in history if trial.profile == first)


def next_step(plan: Plan, history: Sequence[Trial], halt: Halt | None = None) -> Step:
    """What to do after `history` (oldest first); `halt` ends the run with what there is."""
    probes = [trial for trial in history if trial.stage == STAGE_SELECTION]
    cells = [trial for trial in history if trial.stage == STAGE_CLIMB]
    if any(trial.failure and trial.failure.kind is FailureKind.INTEGRITY for trial in history):
        return Finish(ExitReason.INTEGRITY)
    chosen = _chosen(plan, probes)
    if halt is not None:
        return _halted(halt, chosen, best_so_far(history))
    if chosen is None:
        place = plan.first_rank - 1 + len(probes)
        if place < len(plan.candidates):
            return Probe(plan.candidates[place])
        return Finish(ExitReason.NO_FEASIBLE)
    cell = _next_cell(plan, cells)
    if cell is not None:
        return Evaluate(chosen, len(cells), plan.cells[cell])
    if plan.repeats is not None and (plan.repeats.check or any(cell.fits for cell in cells)):
        return Finish(ExitReason.OK, chosen)
    best = best_so_far(history)
    if best is None:
        return Finish(ExitReason.NO_FEASIBLE, chosen)
    return _after_the_climb(plan, history, chosen, best)


def _chosen(plan: Plan, probes: Sequence[Trial]) -> Candidate | None:
    """The first feasible candidate; the one that is checked needs no probe."""
    if plan.repeats is not None and plan.repeats.check:
        return plan.candidates[0]
    return next((plan.candidates[trial.rank - 1] for trial in probes if trial.fits), None)


def _after_the_climb(
    plan: Plan, history: Sequence[Trial], chosen: Candidate, best: Trial
) -> Confirm | Calibrate | Finish:
    """The best cell is confirmed, and what is then recommended is calibrated, where these are asked for."""
    if best.knobs is not None and plan.request.confirm:
        again = confirm.next_knobs(plan, history, best)
        if again is not None:
            return Confirm(chosen, again)
        best, _ = confirm.confirmed(plan, history, best)
    if best.knobs is None:  # of a prototype's run: nothing can be served anew
        return Finish(ExitReason.OK, chosen, best)
    point = next_point(plan, history, chosen, best.knobs)
    if point is not None:
        return point
    if recipe(plan, history, best.knobs) == best.knobs:
        return Finish(ExitReason.OK, chosen, best)
    return Finish(ExitReason.OK, chosen, best, served=served(plan, history, best.knobs))


def _next_cell(plan: Plan, cells: Sequence[Trial]) -> int | None:
    """The place of the next cell in the plan: in order, or as a search decides by all cells so far."""
    if plan.trials is None:
        return len(cells) if len(cells) < len(plan.cells) else None
    places = {knobs: place for place, knobs in enumerate(plan.cells)}
    tried = [
        search.Measured(places[trial.knobs], trial.tps_median if trial.fits else None)
        for trial in cells
        if trial.knobs in places
    ]
    space = [knobs.by_name() for knobs in plan.cells]
    epsilon = plan.request.tps_tie_epsilon
    return search.next_cell(space, tried, plan.trials, epsilon, plan.seed or 0)


def best_so_far(history: Sequence[Trial]) -> Trial | None:
    """The cell that was kept last."""
    return next((trial for trial in reversed(history) if trial.kept), None)


def with_kept(plan: Plan, history: Sequence[Trial], trial: Trial) -> Trial:
    """`trial` with `kept` decided by the keep-best rule; probes and repetitions are never kept."""
    if trial.stage != STAGE_CLIMB or plan.repeats is not None:
        return trial
    if plan.request.quality == "veto":
        trial = quality.vetoed(history, trial)
    return replace(trial, kept=trial.vetoed is None and _would_win(plan, history, trial))


def battery_rounds(plan: Plan, history: Sequence[Trial], trial: Trial) -> int:
    """How often the quality guard asks a feasible trial, right after its replicates."""
    if plan.request.quality == "off" or plan.repeats is not None:
        return 0
    return quality.rounds(history, trial, plan.lossy, wins=_would_win(plan, history, trial))


def _would_win(plan: Plan, history: Sequence[Trial], trial: Trial) -> bool:
    """The keep-best rule; with the guard's veto a lossy cell that only ties does not win."""
    best, epsilon = best_so_far(history), plan.request.tps_tie_epsilon
    if not wins(trial, best, epsilon):
        return False
    if plan.request.quality != "veto" or best is None or quality.is_lossy(best.knobs, plan.lossy):
        return True
    faster = (trial.tps_median or 0.0) > (best.tps_median or 0.0) * (1 + epsilon)
    return faster or not quality.is_lossy(trial.knobs, plan.lossy)


def _halted(halt: Halt, chosen: Candidate | None, best: Trial | None) -> Finish:
    if halt is Halt.INTERNAL:
        return Finish(ExitReason.INTERNAL_ERROR, chosen)
    if halt is Halt.CONFLICT:
        return Finish(ExitReason.PROVIDER_CONFLICT, chosen)
    if halt is Halt.CANCELLED:
        return Finish(ExitReason.INTERRUPTED, chosen, best, partial=best is not None)
    if best is None:
        return Finish(ExitReason.BUDGET_NONE, chosen)
    return Finish(ExitReason.BUDGET_PARTIAL, chosen, best, partial=True)


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
