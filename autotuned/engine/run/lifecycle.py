"""One run from its acceptance to its written end: drained, searched, applied, restored, recorded.

In this order, and whatever happens on the way: the candidate is gone, the live provider comes back,
the end is in the store, and followers are told. Must not know how a run is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from autotuned.core.pipeline import Finish
from autotuned.core.result import recommend
from autotuned.documents.events import RunStarted, TrialReport
from autotuned.documents.result import ErrorDocument, ExitReason, RecommendationDocument
from autotuned.documents.run import Step
from autotuned.engine.apply.apply import Applier
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.measure.context import Bench
from autotuned.engine.measure.trial import uncancelled
from autotuned.engine.run.records import Records
from autotuned.engine.run.runner import Runner
from autotuned.errors import StoreError
from autotuned.settings import Settings
from autotuned.store import runs

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Active:
    """The run in progress. `ended` is set once its end is in the store."""

    run_id: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    runner: Runner | None = None
    task: asyncio.Task[None] | None = None

    def publish(self, report: TrialReport) -> None:
        if self.runner is not None:
            self.runner.observe(report)

    def enter(self, step: Step) -> None:
        """Keep which part of a trial goes on; only for showing."""
        if self.runner is not None:
            self.runner.progress.step = step


class Lifecycle:
    def __init__(
        self,
        settings: Callable[[], Settings],
        records: Records,
        events: Events,
        live: LiveProvider,
        applier: Applier,
        awake: Callable[[], contextlib.AbstractAsyncContextManager[None]],
    ) -> None:
        """`awake` keeps the machine from falling asleep inside the block."""
        self._settings, self._records, self._events = settings, records, events
        self._live, self._applier, self._awake = live, applier, awake

    async def carry_through(self, runner: Runner, bench: Bench) -> None:
        """Do all of it, even when this task is cancelled meanwhile."""
        structlog.contextvars.bind_contextvars(run_id=runner.run_id)
        async with self._awake():
            await uncancelled(self._search_and_close(runner, bench))

    async def _search_and_close(self, runner: Runner, bench: Bench) -> None:
        """Search to the end and write that end down, whatever happens on the way."""
        self._live.sighting.still = True
        finish = Finish(ExitReason.INTERNAL_ERROR)
        answer: RecommendationDocument | None = None
        error: ErrorDocument | None = None
        try:
            await self._announce(runner)
            refusal = await self._drained(runner, bench)
            if refusal is not None and not runner.cancelled:
                finish = Finish(ExitReason.PROVIDER_CONFLICT)
                error = {"code": finish.exit_reason, "message": refusal}
            else:
                finish, _ = await runner.search()
                answer = recommend(runner.run_id, runner.plan.parts()[0], finish)
                kind = bench.provider.kind
                await self._applier.conclude(runner, kind, finish.exit_reason, answer)
        except Exception as caught:
            log.exception("run failed")
            message = f"{type(caught).__name__}: {caught}"
            error = {"code": ExitReason.INTERNAL_ERROR, "message": message}
        finally:
            self._live.sighting.still = False
            runner.enter("restoring")
            try:
                await bench.processes.stop_all()
            finally:  # whatever became of the candidate: the live provider is owed
                await self._restored(runner)
            await bench.processes.close()
            await asyncio.to_thread(shutil.rmtree, bench.folder, ignore_errors=True)
        reason = finish.exit_reason.value
        try:
            await self._records.finish(runner, finish, answer, error)
        except StoreError as failed:
            # It reads as interrupted then; whoever follows must not wait for ever.
            reason = ExitReason.INTERNAL_ERROR.value
            message = f"the run's end cannot be written: {failed.message}"
            runner.tell(message, "error")
            log.error("the run's end cannot be written", reason=failed.message)
        runner.enter("finished")
        self._events.publish({"type": "run.finished", "exit_reason": reason}, runner.run_id)
        await self._events.flush()
        log.info("run finished", exit_reason=reason)

    async def _restored(self, runner: Runner) -> None:
        """Bring the live provider back; the run's document says so where that has not worked yet."""
        if not await self._live.restore() and (owed := self._live.lease) is not None:
            reason = owed.reason or "it is still being tried"
            runner.warn(
                f"the live provider {owed.target.name} was NOT RESTORED at this run's end ({reason}); "
                "whether it is now: autotunectl provider status"
            )
        runner.left_stopped = self._live.stopped_by(runner.run_id)

    async def _drained(self, runner: Runner, bench: Bench) -> str | None:
        """Drain what the preflight claimed; None when the way is free, else why it is not."""
        if self._live.lease is None:
            return None
        runner.enter("draining")
        grace_s = runner.plan.request.drain_grace
        reason = await self._live.drain(bench.processes, grace_s, lambda: runner.cancelled)
        if reason is not None:
            log.error("drain failed", reason=reason)
        else:
            self._keep_away(runner, bench, grace_s)
        return reason

    def _keep_away(self, runner: Runner, bench: Bench, grace_s: float) -> None:
        """From now on every trial looks whether somebody else has brought the live provider back."""

        async def returned() -> str | None:
            found = await self._live.came_back()
            return None if found is None else found.name

        bench.watchdog.returned = returned
        bench.watchdog.drain_again = lambda: self._live.drain_again(grace_s, lambda: runner.halted)

    async def _announce(self, runner: Runner) -> None:
        planned = runner.plan
        started: RunStarted = {
            "type": "run.started",
            "candidates": [candidate.model for candidate in planned.candidates],
            "cells": sum(part.most for part in planned.parts()),
            "target_context": planned.request.target_context,
            "max_duration_s": planned.request.max_duration,
        }
        if planned.trials is not None:
            started["space"] = len(planned.cells)
        self._events.publish(started, runner.run_id)
        for warning in planned.warnings:
            runner.tell(warning)
        log.info("run started", candidates=len(planned.candidates), cells=len(planned.cells))
        keep, database = planned.request.retain_runs, self._records.database
        for gone in await database.ask(runs.retain, keep, runner.run_id):
            await asyncio.to_thread(
                shutil.rmtree, self._settings().run_logs(gone), ignore_errors=True
            )
