"""One run: ask the core for the next step, act, record, ask again.

The store is the only memory of the search: each step is decided from the trials that it holds. The
runner owns the budget, the cancel and the phases; it must not know flags, SQL or sockets.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from dataclasses import replace
from functools import partial
from typing import Literal

import structlog

from autotuned.core import noise, points
from autotuned.core.model import (
    STAGE_CALIBRATION,
    STAGE_CLIMB,
    STAGE_CONFIRM,
    STAGE_SELECTION,
    Failure,
    FailureKind,
    Trial,
)
from autotuned.core.pipeline import (
    Confirm,
    Evaluate,
    Finish,
    Halt,
    Probe,
    battery_rounds,
    best_so_far,
    next_of,
    of_part,
    with_kept,
)
from autotuned.core.plan import Plan
from autotuned.core.points import Calibrate
from autotuned.documents.events import PointLeft, RunEvent, TrialEnded, TrialReport
from autotuned.documents.run import Phase
from autotuned.documents.trial import Stage
from autotuned.engine.events import Events
from autotuned.engine.measure.context import Asked, Bench
from autotuned.engine.measure.trial import TrialRun, stop_standing
from autotuned.engine.measure.watchdog import MAX_RETURNS, Cause, Void, unstopped_s
from autotuned.engine.run.progress import Progress
from autotuned.store import trials
from autotuned.store.database import Database
from autotuned.weights.cache import Weights
from autotuned.weights.integrity import context_window

BUDGET_WARNING = 0.9
PHASES: dict[Stage, Phase] = {
    STAGE_SELECTION: "selecting",
    STAGE_CLIMB: "climbing",
    STAGE_CALIBRATION: "calibrating",
    STAGE_CONFIRM: "confirming",
}
STAGES: dict[type, Stage] = {
    Probe: STAGE_SELECTION,
    Evaluate: STAGE_CLIMB,
    Calibrate: STAGE_CALIBRATION,
    Confirm: STAGE_CONFIRM,
}
HEARTBEAT_S = 5.0
"""Timers stand still while the machine sleeps: the budget is looked at so often after it has woken up."""
CUT = {
    Halt.CANCELLED: (FailureKind.INTERRUPTED, "interrupted"),
    Halt.BUDGET: (FailureKind.BUDGET, "budget exhausted"),
}

log = structlog.get_logger(__name__)


class Runner:
    def __init__(
        self, run_id: str, plan: Plan, bench: Bench, store: Database, events: Events, began: float
    ) -> None:
        self.run_id, self.plan = run_id, plan
        self.progress = Progress(plan, began, lambda: unstopped_s(bench.watchdog.sleep))
        self.warnings: list[str] = []
        """What the operator should know of this run, in the order in which it happened."""
        self.left_stopped: str | None = None
        self.conflict: str | None = None
        """Why the live provider could not be kept away, where that ended the run."""
        self._bench, self._store, self._events = bench, store, events
        self._halt: Halt | None = None
        self._halted = asyncio.Event()
        self._numbers = bench.logs_before
        self._returns = 0

    def cancel(self) -> bool:
        """Ask the run to end now; False when it was asked already. The end itself comes later."""
        return self._stop_for(Halt.CANCELLED)

    @property
    def halted(self) -> bool:
        """True once the run is to end, whatever the reason."""
        return self._halt is not None

    @property
    def cancelled(self) -> bool:
        return self._halt is Halt.CANCELLED

    async def search(self) -> tuple[Finish, tuple[Trial, ...]]:
        """Walk the candidates, climb the cells; how it ended, and all trials, oldest first.

        Never raises for anything that a candidate does. A bug in our own code ends the run as
        `internal_error` with the traceback in a trial's notes and in the log.
        """
        budget = asyncio.create_task(self._mind_the_budget(), name="budget")
        try:
            while True:
                if self.progress.budget_left_s <= 0:  # timers may not know yet: the machine slept
                    self._stop_for(Halt.BUDGET)
                history = await self._store.ask(trials.history, self.run_id)
                await self._learn_window(history)
                # Off the loop: a search in a large space loads its sampler, and takes its time.
                part, step = await asyncio.to_thread(next_of, self.plan, history, self._halt)
                if isinstance(step, Finish):
                    return step, history
                await self._take(part, step, of_part(part, history))
        finally:
            await stop_standing(self._bench)
            budget.cancel()
            await asyncio.gather(budget, return_exceptions=True)

    async def _learn_window(self, history: tuple[Trial, ...]) -> None:
        """How long a context the chosen model knows, before it is calibrated."""
        best = best_so_far(history)
        if best is None or self.plan.window is not None or not self.plan.request.calibrate_context:
            return
        weights = await self._bench.prewarm(best.model, lambda **_: None)
        if isinstance(weights, Weights):
            window = await asyncio.to_thread(context_window, weights.path)
            self.plan = replace(self.plan, window=window or self.plan.request.context_ceiling)

    async def _take(
        self, part: Plan, step: Probe | Evaluate | Confirm | Calibrate, history: tuple[Trial, ...]
    ) -> None:
        """Carry out a step of this part of the plan, after the part's own `history`."""
        self.progress.plan = part
        asked = self._ask(part, step, history)
        began = time.monotonic()
        evaluated = await self._evaluate(asked)
        if isinstance(evaluated, Void):
            await self._undo(asked, evaluated)
            return
        trial = with_kept(part, history, evaluated)
        target, answer = part.request.target_context, self._bench.settings.max_tokens
        await self._store.ask(trials.append, self.run_id, trial, target, answer)
        self.progress.step = None
        left: PointLeft = {}
        if asked.stage == STAGE_SELECTION:
            self.progress.learn(trial)
        elif asked.stage == STAGE_CLIMB:
            self.progress.cells_seconds.append(time.monotonic() - began)
        elif asked.stage == STAGE_CALIBRATION:
            self.progress.points += 1
            self.progress.bracket = points.bracket(part, (*history, trial))
            if self.progress.bracket is not None:
                left["calibration"] = self.progress.bracket
        reason = trial.failure.reason if trial.failure else trial.vetoed
        named = asked.named()
        ended: TrialEnded = {
            "type": "trial",
            **named,
            **left,
            "fits": trial.fits,
            "kept": trial.kept,
            "tps_median": trial.tps_median,
            "ttft_p95_ms": trial.ttft_p95_ms,
            "replicates": trial.waves_n,
            "load_ms": trial.load_ms,
            "reason": reason,
        }
        self._publish(ended)
        knobs = named["knobs"]
        log.info("trial", stage=asked.stage, model=asked.model, knobs=knobs, reason=reason)
        if trial.kept:
            self._publish(
                {
                    "type": "best",
                    "model": asked.model,
                    "knobs": knobs,
                    "tps_median": trial.tps_median,
                    "ttft_p95_ms": trial.ttft_p95_ms,
                }
            )

    async def _undo(self, asked: Asked, void: Void) -> None:
        """Make ready for the same step once more: a void trial leaves no row, only a warning."""
        reason, again = void.reason, "it is repeated"
        if void.cause is Cause.LIVE_BACK:
            self._returns += 1
            failed: str | None = f"for the {MAX_RETURNS}rd time"
            if self._returns < MAX_RETURNS:
                failed = await self._bench.watchdog.drain_again()
            if failed is not None and self._stop_for(Halt.CONFLICT):
                self.conflict = f"{reason}: {failed}"
            if self.halted:
                again = "the run ends"
        self.warn(f"trial of {asked.model} void: {reason} meanwhile; {again}")

    def warn(self, message: str) -> None:
        """Tell the operator, now and in the run's document."""
        self.warnings.append(message)
        self.tell(message)
        log.warning(message)

    def tell(self, message: str, level: Literal["warning", "error"] = "warning") -> None:
        """Tell whoever follows the run."""
        self._publish({"type": "log", "level": level, "message": message})

    async def _evaluate(self, asked: Asked) -> Trial | Void:
        """The trial, whole or cut short by a cancel or the budget; its candidate is gone in any case."""
        self._numbers += 1
        trial = TrialRun(self._bench, asked, self._numbers)
        work = asyncio.create_task(trial.run())
        halted = asyncio.create_task(self._halted.wait())
        try:
            await asyncio.wait({work, halted}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            return await work
        except asyncio.CancelledError:
            if self._halt is None:  # somebody cancelled the run's task itself
                raise
            return trial.record(Failure(*CUT[self._halt]))
        except Exception:  # a bug of ours must still put the live provider back and leave a row
            log.exception("trial failed", model=asked.model)
            self._stop_for(Halt.INTERNAL)
            return trial.record(Failure(FailureKind.INTERNAL, traceback.format_exc()[-470:]))
        finally:
            halted.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    def _ask(
        self, part: Plan, step: Probe | Evaluate | Confirm | Calibrate, history: tuple[Trial, ...]
    ) -> Asked:
        request, progress, candidate = part.request, self.progress, step.candidate
        knobs = None if isinstance(step, Probe) else step.knobs
        asked = Asked(
            STAGES[type(step)],
            candidate.model,
            candidate.rank,
            knobs,
            request.stage2_replicates,
            concurrency=request.concurrency,
            profile=part.profile,
        )
        if isinstance(step, Probe):
            asked = replace(asked, replicates=request.stage1_replicates)
        elif isinstance(step, Confirm):
            asked = replace(asked, pause_s=request.cooldown_s)
        elif isinstance(step, Calibrate):
            asked = replace(
                asked,
                replicates=step.replicates,
                concurrency=step.concurrency,
                calibrates=step.calibrates,
                context=step.context,
                ceiling_ms=request.ceiling_ms,
                confirms=step.confirms,
                slots=step.slots,
            )
        else:
            rests, settled = step.index % part.together == 0, None
            if request.replicates == "auto":
                usual, epsilon = request.stage2_replicates, request.tps_tie_epsilon
                settled = partial(noise.enough, history, usual=usual, epsilon=epsilon)
            asked = replace(
                asked,
                cell=step.index + 1,
                pause_s=request.cooldown_s if rests else 0.0,
                settled=settled,
                battery=partial(battery_rounds, part, history),
            )
        self.enter(PHASES[asked.stage])
        progress.candidate, progress.stage = candidate.rank, asked.stage
        progress.model, progress.knobs = asked.model, knobs or progress.knobs
        progress.cell = asked.cell or progress.cell
        progress.replicate, progress.replicates = 0, asked.replicates
        return asked

    def enter(self, phase: Phase) -> None:
        """Move to a phase and say so, once."""
        if phase != self.progress.phase:
            self.progress.phase, self.progress.prewarm = phase, None
            self._publish({"type": "phase", "phase": phase})

    def observe(self, report: TrialReport) -> None:
        """Publish what a trial reports, and keep the count of replicates and of bytes."""
        if report["type"] == "replicate":
            self.progress.replicate = report["index"]
        elif report["type"] == "prewarm.progress":
            self.enter("prewarming")
            self.progress.prewarm = {
                "activity": report["activity"],
                "bytes": report["bytes"],
                "total": report["total"],
                "rate": report["rate"],
            }
        elif report["type"] == "prewarm.done":
            self.enter(PHASES[report["stage"]])
        self._publish(report)

    def _publish(self, event: RunEvent) -> None:
        self._events.publish(event, self.run_id)

    async def _mind_the_budget(self) -> None:
        """Warn shortly before its end, and end the run with it."""
        last_part = self.plan.request.max_duration * (1 - BUDGET_WARNING)
        await self._until_left(last_part)
        left_s = round(self.progress.budget_left_s, 1)
        self._publish({"type": "budget.warning", "left_s": left_s})
        await self._until_left(0)
        self._stop_for(Halt.BUDGET)

    async def _until_left(self, seconds: float) -> None:
        while (more := self.progress.budget_left_s - seconds) > 0:  # noqa: ASYNC110 - no event tells of time asleep
            await asyncio.sleep(min(HEARTBEAT_S, more))

    def _stop_for(self, halt: Halt) -> bool:
        if self._halt is not None:
            return False
        self._halt = halt
        self._halted.set()
        return True
