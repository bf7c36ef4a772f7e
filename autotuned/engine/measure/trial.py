"""One trial: prewarm, start, ready, warm, replicates, stop. Whatever happens in it, it stops.

Turns one candidate (stage 1) or one cell (stage 2) into a `Trial`; every way in which a candidate
can disappoint is a value there. Must not know which step comes next, the budget, or the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import httpx

from autotuned.core import gate, stats
from autotuned.core.model import STAGE_CLIMB, Failure, FailureKind, Replicate, Spent, Trial
from autotuned.engine.measure import chat, readiness
from autotuned.engine.measure.context import (
    Asked,
    Bench,
    log_name,
    with_telling_line,
)
from autotuned.engine.measure.prompt import Calibration
from autotuned.engine.measure.watchdog import Gauge, Void
from autotuned.host.clock import utc_now
from autotuned.host.files import write_private
from autotuned.host.interface import Child
from autotuned.providers.binary import isolated
from autotuned.providers.interface import Launch
from autotuned.weights.cache import Weights

T = TypeVar("T")

DEATH_SETTLE_S = 0.05
"""A server that answers and then dies is given this long to be seen dying after its last answer."""
PORT_FREE_S = 10.0
THERMAL_POLL_S = 2.0
DECODE_ALLOWANCE_S = 600.0
"""After the gate a request may take this much longer to send the rest; the budget ends it sooner."""


class TrialRun:
    """One trial in progress. `run` gives the finished Trial; after a cancel, `record` gives the cut one."""

    def __init__(self, bench: Bench, asked: Asked, number: int) -> None:
        self._bench, self._asked = bench, asked
        self.log = bench.logs / log_name(number, asked.stage, asked.model)
        self._started_at = utc_now()
        self._replicates: list[Replicate] = []
        self._load_ms: float | None = None
        self._gauge = Gauge(bench.machine, guard=bench.settings.memory_guard)
        self._spent = Spent()
        self._child: Child | None = None
        self._fetched = 0

    async def run(self) -> Trial | Void:
        """Evaluate to the end; the candidate is gone and its port free when this returns or raises."""
        try:
            found = await self._evaluate()
        finally:
            with self._spending("stop_ms"):
                await uncancelled(self._stop())
        return found if isinstance(found, Void) else self.record(found)

    def record(self, failure: Failure | None) -> Trial:
        """What has been measured so far, as a row: feasible exactly when `failure` is None."""
        good = [replicate for replicate in self._replicates if replicate.error is None]
        tps = [replicate.tps for replicate in good if replicate.tps is not None]
        ttft = [replicate.ttft_ms for replicate in good if replicate.ttft_ms is not None]
        return Trial(
            stage=self._asked.stage,
            model=self._asked.model,
            rank=self._asked.rank,
            knobs=self._asked.knobs,
            replicates=tuple(self._replicates),
            failure=failure and replace(failure, reason=gate.bounded(failure.reason)),
            tps_median=stats.median(tps) if tps else None,
            ttft_p95_ms=stats.p95_nearest_rank(ttft) if ttft else None,
            load_ms=self._load_ms,
            strain=self._gauge.strain,
            spent=self._spent,
            started_at=self._started_at,
            ended_at=utc_now(),
        )

    # --- the way of a trial ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _spending(self, part: str) -> Iterator[None]:
        """Count the time inside as this part of the trial, also when it is cut short."""
        began = time.perf_counter()
        self._bench.publish("step", step=part.removesuffix("_ms"))
        try:
            yield
        finally:
            elapsed_ms = (time.perf_counter() - began) * 1000
            self._spent = replace(self._spent, **{part: elapsed_ms})

    async def _evaluate(self) -> Failure | Void | None:
        refusal = await self._bench.refusal(self._bench.configuration(self._asked))
        if refusal is not None:
            return refusal
        if self._asked.stage == STAGE_CLIMB:
            with self._spending("pause_ms"):
                await asyncio.sleep(self._asked.pause_s)
                await self._cooled_down()
        with self._spending("prewarm_ms"):
            weights = await self._bench.prewarm(self._asked.model, self._report_prewarm)
        if isinstance(weights, Failure):
            return weights
        done = {"bytes": weights.weights_bytes, "fetched_bytes": self._fetched}
        self._bench.publish("prewarm.done", **self._asked.named(), **done)
        holder = await asyncio.to_thread(self._bench.ports.holder, self._bench.port)
        if holder is not None:
            reason = f"port {self._bench.port} is held by {holder.name or 'an unknown program'} pid {holder.pid}"
            return Failure(FailureKind.START, reason)
        self._bench.vigil.begin()
        void = (
            await self._bench.vigil.look()
        )  # two models at once may be more than the memory holds
        if void is not None:
            return void
        found = await self._guarded(weights)
        if isinstance(found, Failure):  # is it the candidate's own, or was it disturbed?
            return await self._bench.vigil.look() or found
        return found or self._bench.vigil.slept()

    def _report_prewarm(self, **progress: Any) -> None:
        if progress["activity"] == "fetch":
            self._fetched = progress["bytes"]
        self._bench.publish("prewarm.progress", **self._asked.named(), **progress)

    async def _cooled_down(self) -> None:
        """With the thermal gate: wait until the machine reports nominal thermals; the budget bounds it."""
        while self._bench.thermal_gate and not await asyncio.to_thread(  # noqa: ASYNC110 - heat tells nobody
            self._bench.machine.thermals_nominal
        ):
            await asyncio.sleep(THERMAL_POLL_S)

    async def _guarded(self, weights: Weights) -> Failure | Void | None:
        """Serve and measure, unless the machine runs out of memory first."""
        await self._bench.processes.open()
        launch = self._launch(weights)
        work = asyncio.create_task(self._serve(launch, weights))
        watch = asyncio.create_task(self._gauge.watch())
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
        began = time.perf_counter()
        async with chat.new_client() as client:
            with self._spending("load_ms"):
                try:
                    child = await self._start(launch)
                except OSError as error:
                    return Failure(FailureKind.START, f"cannot be started: {error}")
                failure = await self._ready(client, child, launch)
            if failure is not None:
                return failure
            ready_ms = (time.perf_counter() - began) * 1000
            self._bench.publish(
                "provider.ready", **self._asked.named(), ready_ms=round(ready_ms, 1)
            )
            with self._spending("warm_ms"):
                failure = await self._warm(client, child, launch)
            if failure is not None:
                return failure
            self._load_ms = (time.perf_counter() - began) * 1000
            with self._spending("measure_ms"):
                void = await self._measure(client, child, launch, weights)
            if void is not None:
                return void
        return gate.judge(self._replicates, self._bench.gate_ttft_ms)

    def _launch(self, weights: Weights) -> Launch:
        return Launch(
            model=self._asked.model,
            weights=weights.path,
            knobs=self._asked.knobs,
            port=self._bench.port,
            target_context=self._bench.target_context,
            folder=self._bench.folder,
            parent_pid=self._bench.processes.guardian_pid,
        )

    async def _start(self, launch: Launch) -> Child:
        command = self._bench.provider.command(self._bench.binary, launch)
        environ = isolated(self._bench.environ, command.settings) | {**command.env}
        for path, text in command.files.items():
            await asyncio.to_thread(write_private, path, text)
        self._bench.publish(
            "provider.starting", **self._asked.named(), argv=list(command.argv), log=str(self.log)
        )
        started = {"at": self._started_at, "run_id": self._bench.run_id}
        record = {**self._bench.configuration(self._asked).document(), **started}
        await asyncio.to_thread(self._bench.inflight.begin, record)
        self._child = await self._bench.processes.start(
            command.argv,
            env=environ,
            cwd=self._bench.folder,
            log=self.log,
            log_max_bytes=4 * 1024 * 1024,
        )
        await self._gauge.attach(self._child)
        return self._child

    async def _ready(
        self, client: httpx.AsyncClient, child: Child, launch: Launch
    ) -> Failure | None:
        """None once the candidate's own group serves the model; else why it never did."""
        reason = await readiness.reason_not_ready(self._bench, client, child, launch, self.log)
        if child.exit_code is not None:
            return await self._died(child.exit_code, "during load")
        return None if reason is None else Failure(FailureKind.START, self._bench.mask(reason))

    async def _warm(
        self, client: httpx.AsyncClient, child: Child, launch: Launch
    ) -> Failure | None:
        """One disposable request; it also teaches how long this model's tokens are."""
        calibration = self._bench.calibration(launch.model)
        seconds = self._bench.settings.ready_timeout_s
        while True:
            prompt = calibration.warmup_prompt()
            request = self._request(launch, prompt, max_tokens=1)
            answer = await chat.measure(
                client, request, gate_ttft_ms=seconds * 1000, timeout_s=seconds, stop_tokens=()
            )
            if not (chat.refused_for_length(answer) and calibration.may_shrink(len(prompt))):
                break
        if answer.error is not None:
            await _settled(child, DEATH_SETTLE_S)
        if child.exit_code is not None:
            return await self._died(child.exit_code, "during the warm-up request")
        if answer.error not in (None, chat.NOTHING_SAID):  # one token of a hidden thought is none
            return await self._with_log(
                FailureKind.START, f"warm-up request failed: {answer.error}"
            )
        calibration.learn(len(prompt), answer.prompt_tokens)
        self._gauge.sample()
        return None

    async def _measure(
        self, client: httpx.AsyncClient, child: Child, launch: Launch, weights: Weights
    ) -> Void | None:
        """All replicates, or up to the first that decides; the vigil looks before and after each."""
        void = await self._bench.vigil.look()
        while void is None and not self._enough():
            self._gauge.measuring = True
            replicate = await self._replicate(client, child, launch, weights)
            self._gauge.measuring = False
            self._gauge.sample()
            self._replicates.append(replicate)
            if replicate.error is not None or self._enough():
                await _settled(child, DEATH_SETTLE_S)
            replicate = replace(replicate, alive_after=child.exit_code is None)
            if replicate.error is not None and child.exit_code is not None:
                died = await self._died(child.exit_code, "during a request")
                replicate = replace(replicate, error=died.reason)
            self._replicates[-1] = replicate
            index = len(self._replicates)
            self._bench.publish(
                "replicate",
                **self._asked.named(),
                index=index,
                total=max(index, self._asked.replicates),
                ttft_ms=replicate.ttft_ms,
                tps=replicate.tps,
                decode_tps=replicate.decode_tps,
                prefill_tps=replicate.prefill_tps,
                prompt_tokens=replicate.prompt_tokens,
                error=replicate.error,
            )
            void = await self._bench.vigil.look()
            if gate.is_final(replicate):
                break
        return void

    def _enough(self) -> bool:
        """Whether this trial has been asked often enough; once infeasible, adapting asks no more."""
        done = self._replicates
        if self._asked.settled is None:
            return len(done) >= self._asked.replicates
        if any(replicate.error is not None for replicate in done):
            return True
        return self._asked.settled([replicate.tps or 0.0 for replicate in done])

    async def _replicate(
        self, client: httpx.AsyncClient, child: Child, launch: Launch, weights: Weights
    ) -> Replicate:
        """One measured request with a prompt of the right length that no cache has seen.

        Repeated once when the server answered from its prompt cache all the same, and once a model
        when the very first prompt missed its length and the miss has taught how to hit it.
        """
        calibration = self._bench.calibration(launch.model)
        replicate = await self._request_once(client, launch, weights, calibration)
        if replicate.error is None and calibration.should_repeat(replicate.prompt_tokens):
            await _settled(child, DEATH_SETTLE_S)
            if child.exit_code is not None:
                return replicate
            replicate = await self._request_once(client, launch, weights, calibration)
        if replicate.error is None and chat.served_from_cache(replicate):
            replicate = await self._request_once(client, launch, weights, calibration)
            if replicate.error is None and chat.served_from_cache(replicate):
                cached = f"{replicate.cached_tokens} of {replicate.prompt_tokens} prompt tokens"
                return replace(replicate, error=f"{cached} came from the prompt cache")
        return replicate

    async def _request_once(
        self, client: httpx.AsyncClient, launch: Launch, weights: Weights, calibration: Calibration
    ) -> Replicate:
        """One request that counts: a prompt refused for its length teaches, and a shorter one follows."""
        gate_ms = self._bench.gate_ttft_ms
        while True:
            prompt = calibration.prompt(random.SystemRandom())
            replicate = await chat.measure(
                client,
                self._request(launch, prompt, self._bench.settings.max_tokens),
                gate_ttft_ms=gate_ms,
                timeout_s=gate_ms / 1000 + DECODE_ALLOWANCE_S,
                stop_tokens=gate.stop_tokens(weights.special_tokens),
            )
            if not (chat.refused_for_length(replicate) and calibration.may_shrink(len(prompt))):
                break
        calibration.learn(len(prompt), replicate.prompt_tokens)
        error = replicate.error
        return replicate if error is None else replace(replicate, error=self._bench.mask(error))

    def _request(self, launch: Launch, prompt: str, max_tokens: int) -> chat.ChatRequest:
        return chat.ChatRequest(
            url=f"http://127.0.0.1:{launch.port}/v1/chat/completions",
            model=self._bench.provider.request_model(launch),
            prompt=prompt,
            max_tokens=max_tokens,
        )

    # --- the end of a candidate, and what it did to the machine ------------------------------------

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop(self._bench.settings.stop_grace_s)
        with contextlib.suppress(OSError):  # the next start, or the next agent, replaces it
            await asyncio.to_thread(self._bench.inflight.end)
        if child is None:
            return
        deadline = time.monotonic() + PORT_FREE_S
        while not self._bench.ports.is_free(self._bench.port) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells when a port becomes free

    async def _died(self, code: int, when: str) -> Failure:
        reason = f"exited {when} with code {code}"
        if code in (137, -9):
            reason = f"killed {when} (code {code}): likely out of memory"
        return await self._with_log(FailureKind.START, reason)

    async def _with_log(self, kind: FailureKind, reason: str) -> Failure:
        reason = await asyncio.to_thread(with_telling_line, reason, self._bench.provider, self.log)
        return Failure(kind, self._bench.mask(reason))


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


async def _settled(child: Child, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await child.exited()
    except TimeoutError:
        return
