"""Stage 3 as a fold over its trials: the next point of the chosen model, the final recipe, the document.

Context first, with the best cell's knobs; then concurrency at the context that came out. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuned.core import load
from autotuned.core.calibrate import (
    Ask,
    ConcurrencyAnswer,
    ContextAnswer,
    ContextBounds,
    Point,
    is_queue,
    next_concurrency,
    next_context,
)
from autotuned.core.model import (
    CUT_SHORT,
    STAGE_CALIBRATION,
    Axis,
    Candidate,
    FailureKind,
    Trial,
)
from autotuned.core.plan import Plan
from autotuned.documents.result import (
    BracketDocument,
    CalibrationDocument,
    CalibrationPoint,
    ConcurrencyDocument,
    ContextDocument,
)
from autotuned.shared.knobs import Knobs

DRAFT_MODEL = "draft_model"
"""The knob by which a server decodes speculatively, one request at a time."""


@dataclass(frozen=True, slots=True)
class Calibrate:
    """Measure this point of the chosen candidate (stage 3).

    `slots`: what the server is started with in place of `max_batch`, so that one start serves more points.
    """

    candidate: Candidate
    knobs: Knobs
    calibrates: Axis
    context: int
    concurrency: int
    replicates: int
    confirms: bool = False
    slots: int | None = None


def next_point(
    plan: Plan, history: Sequence[Trial], chosen: Candidate, best: Knobs
) -> Calibrate | None:
    """The next point after `history`, or None where nothing is left to calibrate."""
    request = plan.request
    ask = _context(plan, history)
    if isinstance(ask, Ask):
        knobs = best._replace(max_context=ask.max_context)
        count = request.stage2_replicates if ask.confirms else 1
        return Calibrate(
            chosen, knobs, "context", ask.context, request.concurrency, count, ask.confirms
        )
    streams = _concurrency(plan, history, best)
    if isinstance(streams, int):
        answer = None if ask is None else ask.answer
        knobs = best._replace(
            max_batch=_batch(plan, streams), max_context=answer or best.max_context
        )
        context = answer or request.target_context
        count, slots = request.stage2_replicates, _slots(plan, history, best)
        return Calibrate(chosen, knobs, "concurrency", context, streams, count, slots=slots)
    return None


def recipe(plan: Plan, history: Sequence[Trial], best: Knobs) -> Knobs:
    """The best cell's knobs, with what was calibrated in their place."""
    context, streams = _context(plan, history), _concurrency(plan, history, best)
    if isinstance(context, ContextAnswer):
        best = best._replace(max_context=context.answer or best.max_context)
    if isinstance(streams, ConcurrencyAnswer):
        useful = streams.recommended
        best = best._replace(max_batch=_batch(plan, useful) if useful else best.max_batch)
    return best


def served(plan: Plan, history: Sequence[Trial], best: Knobs) -> Trial | None:
    """The trial that was measured with the final recipe, under as many streams as it is recommended for."""
    knobs, answer = recipe(plan, history, best), _concurrency(plan, history, best)
    streams = answer.recommended if isinstance(answer, ConcurrencyAnswer) else None
    return next(
        (
            trial
            for trial in reversed(history)
            if trial.fits and trial.knobs == knobs and streams in (None, trial.concurrency)
        ),
        None,
    )


def document(plan: Plan, history: Sequence[Trial], best: Knobs | None) -> CalibrationDocument:
    """What is known of both so far; an answer is null until it is there."""
    request, found = plan.request, CalibrationDocument(context=None, concurrency=None)
    context = _context(plan, history)
    if context is not None:
        bounds = _bounds(plan)
        found["context"] = ContextDocument(
            answer=context.answer if isinstance(context, ContextAnswer) else None,
            ceiling_ms=request.ceiling_ms,
            bound=context.bound if isinstance(context, ContextAnswer) else context.max_context,
            quantum=bounds.quantum_at(bounds.bound),
            points=[{"context": _tried(p), **_shown(p)} for p in _points(plan, history, "context")],
        )
    if best is not None and request.calibrate_concurrency:
        streams = _concurrency(plan, history, best)
        answer = ConcurrencyAnswer(None, None)
        if isinstance(streams, ConcurrencyAnswer):
            answer = streams
        points = _points(plan, history, "concurrency")
        several = ConcurrencyDocument(
            largest=answer.largest,
            recommended=answer.recommended,
            ceiling_ms=request.ceiling_ms,
            points=[{"concurrency": p.value, **_shown(p)} for p in points],
        )
        reason = pinned(plan, best)
        if reason is not None:
            several["reason"] = reason
        found["concurrency"] = several
    return found


def bracket(plan: Plan, history: Sequence[Trial]) -> BracketDocument | None:
    """Between what passes and what does not, of what was calibrated last; None before the first point."""
    calibrates = next((t.calibrates for t in reversed(history) if t.calibrates is not None), None)
    if calibrates is None:
        return None
    points = _points(plan, history, calibrates)
    passes = max((point.value for point in points if point.passes), default=None)
    failed = [point for point in points if not point.passes]
    fails = [_tried(point) if calibrates == "context" else point.value for point in failed]
    return {
        "calibrates": calibrates,
        "points": len(points),
        "passes": passes,
        "fails": min((value for value in fails if value > (passes or 0)), default=None),
    }


def pinned(plan: Plan, best: Knobs) -> str | None:
    """Why this server is asked by one at a time, whatever would be measured."""
    if plan.single_stream:
        return "this server answers one request at a time"
    draft = dict(best.extra).get(DRAFT_MODEL)
    return f"{DRAFT_MODEL} {draft} serves one request at a time" if draft else None


def _context(plan: Plan, history: Sequence[Trial]) -> Ask | ContextAnswer | None:
    if not plan.request.calibrate_context:
        return None
    return next_context(_bounds(plan), _points(plan, history, "context"))


def _bounds(plan: Plan) -> ContextBounds:
    request = plan.request
    bound = min(request.context_ceiling, plan.window or request.context_ceiling)
    return ContextBounds(request.target_context, bound, request.context_quantum)


def _concurrency(
    plan: Plan, history: Sequence[Trial], best: Knobs
) -> int | ConcurrencyAnswer | None:
    request = plan.request
    if not request.calibrate_concurrency:
        return None
    points = _points(plan, history, "concurrency")
    if plan.slots_at_once:  # that it does not start with all slots says nothing of fewer
        failed = next((point for point in points if point.never_served), None)
        points = [point for point in points if point is not failed]
    ceiling = _ceiling(plan, best)
    return next_concurrency(ceiling, request.min_gain, request.ceiling_ms, points)


def _ceiling(plan: Plan, best: Knobs) -> int:
    ceiling = plan.request.concurrency_ceiling if pinned(plan, best) is None else 1
    return min([ceiling, *plan.batches[-1:]])


def _batch(plan: Plan, streams: int) -> int:
    """The smallest `max_batch` of this server that serves so many."""
    return next((count for count in plan.batches if count >= streams), streams)


def _slots(plan: Plan, history: Sequence[Trial], best: Knobs) -> int | None:
    """All slots that are in question, for a server that can have them at once and has not failed to start so."""
    failed = any(point.never_served for point in _points(plan, history, "concurrency"))
    return _batch(plan, _ceiling(plan, best)) if plan.slots_at_once and not failed else None


def _points(plan: Plan, history: Sequence[Trial], calibrates: Axis) -> list[Point]:
    return [
        _point(trial, trial.knobs, plan.request.ceiling_ms)
        for trial in history
        if trial.stage == STAGE_CALIBRATION
        and trial.calibrates == calibrates
        and trial.knobs is not None
        and not (trial.failure and trial.failure.kind in CUT_SHORT)
    ]


def _point(trial: Trial, knobs: Knobs, ceiling_ms: float) -> Point:
    *_, wave = load.waves(trial.replicates) or [[]]
    times = [one.ttft_ms for one in wave if one.ttft_ms is not None and one.ttft_ms <= ceiling_ms]
    late = any(one.gate_missed or (one.ttft_ms or 0.0) > ceiling_ms for one in wave)
    failure = trial.failure
    for_want = failure is not None and failure.kind in (FailureKind.START, FailureKind.MEMORY)
    started = for_want and trial.spent.load_ms is not None
    # Of one at a time it was the start with all slots that took the machine down.
    first = (trial.calibrates, trial.concurrency) == ("concurrency", 1)
    refused = first and failure is not None and failure.kind is FailureKind.QUARANTINE
    return Point(
        value=trial.concurrency if trial.calibrates == "concurrency" else trial.context or 0,
        passes=trial.fits,
        # That of the streams which came in time says nothing of a wave that did not.
        ttft_p95_ms=None if late and not trial.fits else trial.ttft_p95_ms,
        tps=trial.tps_median,
        reason=None if failure is None else failure.reason,
        max_context=knobs.max_context,
        confirms=trial.confirms,
        never_served=(started or refused) and not trial.replicates,
        in_time=len(times) if late else None,
        queued=late and is_queue(times, ceiling_ms),
    )


def _tried(point: Point) -> int:
    """The context that a point says something of: where nothing served, that of the start."""
    if point.never_served and not point.confirms:
        return point.max_context
    return point.value


def _shown(point: Point) -> CalibrationPoint:
    return {
        "passes": point.passes,
        "ttft_p95_ms": point.ttft_p95_ms,
        "tps": point.tps,
        "reason": point.reason,
    }
