"""One trial: pause until cool, prewarm, start, ready, warm, replicates, stop. Whatever happens in it, it stops.

Turns one candidate (stage 1) or one cell (stage 2) into a `Trial`; every way in which a candidate
can disappoint is a value there. Must not know which step comes next, the budget, or the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from typing_extensions import Unpack

from autotuned.core import gate, load, stats
from autotuned.core.model import (
    STAGE_CLIMB,
    STAGE_CONFIRM,
    Answers,
    Failure,
    FailureKind,
    PhaseTimings,
    Trial,
)
from autotuned.documents.events import (
    ProviderReady,
    ProviderStarting,
    TrialPrewarmed,
    TrialPrewarming,
)
from autotuned.documents.run import PrewarmDocument, Step
from autotuned.engine.measure import chat, readiness
from autotuned.engine.measure.context import (
    Asked,
    Bench,
    log_name,
    with_telling_line,
)
from autotuned.engine.measure.requests import DEATH_SETTLE_S, Requests, settled
from autotuned.engine.measure.watchdog import Sampler, Void
from autotuned.host.children.process import Child
from autotuned.host.clock import utc_now
from autotuned.host.files import write_private
from autotuned.providers.binary import isolated
from autotuned.providers.server import Launch
from autotuned.weights.cache import Weights

T = TypeVar("T")

PORT_FREE_S = 10.0
THERMAL_POLL_S = 2.0


class TrialRun:
    """One trial in progress. `run` gives the finished Trial; after a cancel, `record` gives the cut one."""

    def __init__(self, bench: Bench, asked: Asked, number: int) -> None:
        self._bench, self._asked = bench, asked
        self.log = bench.logs / log_name(number, asked.stage, asked.model)
        self._started_at = utc_now()
        self._context = asked.context or asked.profile or bench.target_context
        self._gate_ms = asked.ceiling_ms or bench.gate_ttft_ms
        self._requests = Requests(bench, asked, self._context, self._gate_ms)
        self._load_ms: float | None = None
        self._sampler = Sampler(bench.machine, guard=bench.settings.memory_guard)
        self._spent = PhaseTimings()
        self._child: Child | None = None
        self._serve_argv: tuple[str, ...] = ()
        self._answers: tuple[Answers, ...] = ()
        self._fetched = 0

    async def run(self) -> Trial | Void:
        """Evaluate to the end; the candidate is gone and its port free when this returns or raises."""
        ignored: tuple[type[BaseException], ...] = ()
        try:
            self._child = await self._standing()
            found = await self._evaluate()
            self._leave_standing(found)
            # A run that ends while its candidate stops has this answer.
            ignored = () if isinstance(found, Void) else (asyncio.CancelledError,)
        finally:
            with self._spending("stop"), contextlib.suppress(*ignored):
                await uncancelled(self._stop())
        return found if isinstance(found, Void) else self.record(found)

    def record(self, failure: Failure | None) -> Trial:
        """What has been measured so far, as a row: feasible exactly when `failure` is None."""
        replicates = self._requests.replicates
        tps = load.figures(replicates)
        itl_ms = self._requests.itl_ms if self._asked.concurrency > 1 else []
        return Trial(
            stage=self._asked.stage,
            model=self._asked.model,
            rank=self._asked.rank,
            knobs=self._asked.knobs,
            replicates=tuple(replicates),
            failure=failure and replace(failure, reason=gate.bounded(failure.reason)),
            tps_median=stats.median(tps) if tps else None,
            ttft_p95_ms=load.ttft_p95_ms(replicates),
            load_ms=self._load_ms,
            strain=self._sampler.strain,
            conditions=self._sampler.conditions,
            spent=self._spent,
            started_at=self._started_at,
            ended_at=utc_now(),
            concurrency=self._asked.concurrency,
            itl_p50_ms=stats.median(itl_ms) if itl_ms else None,
            itl_p95_ms=stats.p95_nearest_rank(itl_ms) if itl_ms else None,
            calibrates=self._asked.calibrates,
            context=self._asked.context,
            confirms=self._asked.confirms,
            profile=self._asked.profile,
            serve_argv=self._serve_argv,
            answers=self._answers,
        )

    # --- the way of a trial ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _spending(self, part: Step) -> Iterator[None]:
        """Count the time inside as this part of the trial, also when it is cut short."""
        began = time.perf_counter()
        self._bench.enter(part)
        try:
            yield
        finally:
            elapsed_ms = (time.perf_counter() - began) * 1000
            self._spent = replace(self._spent, **{f"{part}_ms": elapsed_ms})

    async def _evaluate(self) -> Failure | Void | None:
        refusal = await self._bench.refusal(self._bench.configuration(self._asked))
        if refusal is not None:
            return refusal
        if self._asked.stage in (STAGE_CLIMB, STAGE_CONFIRM):
            with self._spending("pause"):
                await asyncio.sleep(self._asked.pause_s)
                await self._cooled_down()
        with self._spending("prewarm"):
            weights = await self._bench.prewarm(self._asked.model, self._report_prewarm)
        if isinstance(weights, Failure):
            return weights
        done: TrialPrewarmed = {
            "type": "prewarm.done",
            **self._asked.named(),
            "bytes": weights.weights_bytes,
            "fetched_bytes": self._fetched,
        }
        self._bench.publish(done)
        holder = await asyncio.to_thread(self._bench.ports.holder, self._bench.port)
        if holder is not None and self._child is None:
            reason = f"port {self._bench.port} is held by {holder.name or 'an unknown program'} pid {holder.pid}"
            return Failure(FailureKind.START, reason)
        self._bench.watchdog.begin()
        void = (
            await self._bench.watchdog.look()
        )  # two models at once may be more than the memory holds
        if void is not None:
            return void
        found = await self._guarded(weights)
        if isinstance(found, Failure):  # is it the candidate's own, or was it disturbed?
            return await self._bench.watchdog.look() or found
        return found or self._bench.watchdog.slept()

    def _report_prewarm(self, **progress: Unpack[PrewarmDocument]) -> None:
        if progress["activity"] == "fetch":
            self._fetched = progress["bytes"]
        event: TrialPrewarming = {"type": "prewarm.progress", **self._asked.named(), **progress}
        self._bench.publish(event)

    async def _cooled_down(self) -> None:
        """With the thermal gate: wait until the machine reports nominal thermals; the budget bounds it."""
        while self._bench.thermal_gate and not await asyncio.to_thread(  # noqa: ASYNC110 - heat tells nobody
            self._bench.machine.thermals_nominal
        ):
            await asyncio.sleep(THERMAL_POLL_S)

    async def _guarded(self, weights: Weights) -> Failure | Void | None:
        """Serve and measure, unless the machine runs out of memory first."""
        await self._sampler.begin()
        await self._bench.processes.open()
        launch = self._launch(weights)
        if launch.knobs is not None:
            recipe = replace(launch, knobs=self._asked.knobs)
            self._serve_argv = self._bench.provider.serve_argv(self._bench.binary, recipe)
        work = asyncio.create_task(self._serve(launch, weights))
        watch = asyncio.create_task(self._sampler.watch())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            watch.result()
            return Failure(FailureKind.MEMORY, "memory pressure critical")
        finally:
            work.cancel()
            watch.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _serve(self, launch: Launch, weights: Weights) -> Failure | Void | None:
        began, child = time.perf_counter(), self._child
        started = {"at": self._started_at, "run_id": self._bench.run_id}
        record = {**self._bench.configuration(self._asked).document(), **started}
        try:
            await asyncio.to_thread(self._bench.inflight.begin, record)
        except OSError as error:
            return Failure(FailureKind.START, f"cannot be started: {error}")
        if child is not None:
            await self._sampler.attach(child)
        else:
            with self._spending("load"):
                try:
                    child = await self._start(launch)
                except OSError as error:
                    return Failure(FailureKind.START, f"cannot be started: {error}")
                failure = await self._ready(child, launch)
            if failure is not None:
                return failure
            ready_ms = (time.perf_counter() - began) * 1000
            ready: ProviderReady = {
                "type": "provider.ready",
                **self._asked.named(),
                "ready_ms": round(ready_ms, 1),
            }
            self._bench.publish(ready)
        with self._spending("warm"):
            failure = await self._warm(child, launch)
        if failure is not None:
            return failure
        self._load_ms = (time.perf_counter() - began) * 1000
        with self._spending("measure"):
            void = await self._sampler.counted(self._measure(child, launch, weights))
        found = void or gate.judge(self._requests.replicates, self._gate_ms)
        return await self._compare_answers(launch, child) if found is None else found

    async def _compare_answers(self, launch: Launch, child: Child) -> Void | None:
        """The battery of the quality guard, as often as this cell has to answer it."""
        if self._asked.battery is None:
            return None
        for _ in range(self._asked.battery(self.record(None))):
            self._bench.enter("quality")
            self._answers += (await self._requests.battery(launch, child),)
        return await self._bench.watchdog.look() if self._answers else None

    def _launch(self, weights: Weights) -> Launch:
        return Launch(
            model=self._asked.model,
            weights=weights.path,
            knobs=self._asked.started,
            port=self._bench.port,
            target_context=self._context,
            folder=self._bench.folder,
            parent_pid=self._bench.processes.guardian_pid,
        )

    async def _start(self, launch: Launch) -> Child:
        command = self._bench.provider.command(self._bench.binary, launch)
        environ = isolated(self._bench.environ, command.settings) | {**command.env}
        for path, text in command.files.items():
            await asyncio.to_thread(write_private, path, text)
        starting: ProviderStarting = {
            "type": "provider.starting",
            **self._asked.named(),
            "argv": list(command.argv),
            "log": str(self.log),
        }
        self._bench.publish(starting)
        self._child = await self._bench.processes.start(
            command.argv,
            env=environ,
            cwd=self._bench.folder,
            log=self.log,
            log_max_bytes=4 * 1024 * 1024,
        )
        await self._sampler.attach(self._child)
        return self._child

    async def _ready(self, child: Child, launch: Launch) -> Failure | None:
        """None once the candidate's own group serves the model; else why it never did."""
        async with chat.new_client() as client:
            reason = await readiness.reason_not_ready(self._bench, client, child, launch, self.log)
        if child.exit_code is not None:
            return await self._died(child.exit_code, "during load")
        return None if reason is None else Failure(FailureKind.START, self._bench.mask(reason))

    async def _warm(self, child: Child, launch: Launch) -> Failure | None:
        """Disposable requests, as many as are measured at once; they also teach how long this model's tokens are."""
        answer = await self._requests.warm_up(launch)
        if answer.error is not None:
            await settled(child, DEATH_SETTLE_S)
        if child.exit_code is not None:
            return await self._died(child.exit_code, "during the warm-up request")
        if answer.error not in (None, chat.NOTHING_SAID):  # one token of a hidden thought is none
            return await self._with_log(
                FailureKind.START, f"warm-up request failed: {answer.error}"
            )
        self._sampler.sample()
        return None

    async def _measure(self, child: Child, launch: Launch, weights: Weights) -> Void | None:
        """All replicates, or up to the first that decides; the watchdog looks before and after each."""
        requests, tokens = self._requests, gate.stop_tokens(weights.special_tokens)
        void = await self._bench.watchdog.look()
        while void is None and not requests.enough():
            self._sampler.measuring = True
            await requests.wave(launch, tokens, child)
            self._sampler.measuring = False
            self._sampler.sample()
            error = requests.error
            if error is not None or requests.enough():
                await settled(child, DEATH_SETTLE_S)
            alive = child.exit_code is None
            if error is not None and child.exit_code is not None:
                error = (await self._died(child.exit_code, "during a request")).reason
            requests.close_wave(error, alive=alive)
            void = await self._bench.watchdog.look()
            if any(gate.is_final(one) for one in requests.last):
                break
        return void

    # --- the end of a candidate, and what it did to the machine ------------------------------------

    async def _standing(self) -> Child | None:
        """The server of the point before, where this one goes on with it; any other that stands is ended."""
        standing = self._bench.standing
        child = (
            standing.take(self._asked.model, self._asked.started) if self._asked.continues else None
        )
        if child is None:
            await stop_standing(self._bench)
        else:
            self.log = standing.log
        return child

    def _leave_standing(self, found: Failure | Void | None) -> None:
        """Leave the server to the next point, unless it may still read a prompt that was abandoned.

        With one slot the next warm-up waits for that.
        """
        knobs, child = self._asked.started, self._child
        if not self._asked.continues or child is None or child.exit_code is not None:
            return
        alone = knobs is not None and knobs.max_batch == 1
        missed = isinstance(found, Failure) and found.kind is FailureKind.GATE
        if found is None or (alone and missed):
            standing = self._bench.standing
            standing.child, standing.model, standing.knobs = child, self._asked.model, knobs
            standing.log = self.log
            self._child = None

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await _ended(self._bench, child)
        with contextlib.suppress(OSError):  # the next start, or the next agent, replaces it
            await asyncio.to_thread(self._bench.inflight.end)

    async def _died(self, code: int, when: str) -> Failure:
        reason = f"exited {when} with code {code}"
        if code in (137, -9):
            reason = f"killed {when} (code {code}): likely out of memory"
        return await self._with_log(FailureKind.START, reason)

    async def _with_log(self, kind: FailureKind, reason: str) -> Failure:
        reason = await asyncio.to_thread(with_telling_line, reason, self._bench.provider, self.log)
        return Failure(kind, self._bench.mask(reason))


async def stop_standing(bench: Bench) -> None:
    child, bench.standing.child = bench.standing.child, None
    if child is not None:
        await uncancelled(_ended(bench, child))


async def _ended(bench: Bench, child: Child) -> None:
    await child.stop(bench.settings.stop_grace_s)
    deadline = time.monotonic() + PORT_FREE_S
    while not bench.ports.is_free(bench.port) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # nothing tells when a port becomes free


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when this task is cancelled meanwhile; the cancel follows then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
