"""What the agent can be asked about runs: start, cancel, wait, status, result.

One run at a time. A request is refused here at once (config error, conflict, busy), or it becomes a
run whose every end is written to the store and published. Must not know the wire, nor flags of servers.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from autotuned.core import recommendation
from autotuned.core.model import ExitReason, MachineFacts, Trial
from autotuned.core.pipeline import Outcome, best_so_far
from autotuned.core.request import Plan, TuneRequest, parse, plan
from autotuned.engine.events import Events
from autotuned.engine.preflight import conflict, find_conflicts
from autotuned.engine.runner import Runner, remove_folder
from autotuned.engine.trial import Bench, uncancelled
from autotuned.errors import (
    AutotunedError,
    Busy,
    ConfigError,
    NotFound,
    ProviderConflict,
    ShuttingDown,
)
from autotuned.host.clock import utc_now
from autotuned.host.interface import Machine, Ports, Processes
from autotuned.host.launchd import Launchd
from autotuned.providers.interface import Binary, Provider
from autotuned.settings import Settings
from autotuned.store.database import Store
from autotuned.store.runs import RunRow
from autotuned.weights.cache import prewarm

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """The concrete pieces that the composition root hands over."""

    processes: Callable[[], Processes]
    ports: Ports
    machine: Machine
    launchd: Launchd
    provider: Callable[[str], Awaitable[tuple[Provider, Binary]]]
    """Kind (or `auto`) to adapter and binary; raises ProviderMissing."""
    marker: str
    environ: Mapping[str, str]


@dataclass(slots=True)
class Active:
    """The run in progress: `finished` is set once its end is in the store."""

    run_id: str
    finished: asyncio.Event
    runner: Runner | None = None
    task: asyncio.Task[None] | None = None


class Agent:
    """The runs of this agent, past and present."""

    def __init__(self, settings: Settings, store: Store, events: Events, host: Host) -> None:
        self._settings, self._store, self._events, self._host = settings, store, events, host
        self._active: Active | None = None
        self._stopping = False

    # --- starting ----------------------------------------------------------------------------------

    async def start(self, params: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Validate, look for conflicts, begin. `{run_id, state, warnings}`, or `{plan}` for a dry run.

        Raises ConfigError, ProviderMissing, ProviderConflict (each with a run row and its `run_id`,
        but none for a dry run), Busy or ShuttingDown.
        """
        if self._stopping:
            message = "the agent is shutting down"
            raise ShuttingDown(message)
        if self._active is not None and not dry_run:
            message = f"run {self._active.run_id} is active; wait for it, or cancel it"
            raise Busy(message, run_id=self._active.run_id)
        began = time.monotonic()
        active = Active(new_run_id(), asyncio.Event())
        if dry_run:
            return await self._dry_run(params)
        self._active = active
        try:
            return await self._begin(active, params, began)
        except BaseException:
            self._release(active)
            raise

    async def _begin(
        self, active: Active, params: Mapping[str, Any], began: float
    ) -> dict[str, Any]:
        request = None
        try:
            request = parse(params)
            provider, binary, planned = await self._plan(request)
            await self._refuse_conflicts(provider, request)
        except AutotunedError as error:
            await self._record_refusal(active.run_id, request, params, error)
            raise
        await self._open_run(active.run_id, planned, provider, binary)
        bench = self._bench(active.run_id, request, provider, binary)
        active.runner = Runner(active.run_id, planned, bench, self._store, self._events, began)
        active.task = asyncio.create_task(
            self._carry_through(active, bench), name=f"run {active.run_id}"
        )
        return {"run_id": active.run_id, "state": "running", "warnings": list(planned.warnings)}

    async def _plan(self, request: TuneRequest) -> tuple[Provider, Binary, Plan]:
        provider, binary = await self._host.provider(
            request.provider or self._settings.provider.kind
        )
        catalogue = [(entry.model, entry.size_b) for entry in provider.catalogue]
        return provider, binary, plan(request, catalogue, self._settings.provider.max_tokens)

    async def _refuse_conflicts(self, provider: Provider, request: TuneRequest) -> None:
        found = await self._conflicts(provider, request.port)
        if found:
            raise conflict(found, request.port)

    async def _conflicts(self, provider: Provider, port: int) -> list[str]:
        host, labels = self._host, self._settings.live.labels
        return await find_conflicts(provider, host.launchd, labels, host.ports, port, host.marker)

    def _bench(
        self, run_id: str, request: TuneRequest, provider: Provider, binary: Binary
    ) -> Bench:
        host = self._host
        processes = host.processes()
        return Bench(
            provider=provider,
            binary=binary,
            settings=self._settings.provider,
            processes=processes,
            ports=host.ports,
            machine=host.machine,
            prewarm=lambda model: prewarm(model, provider.weights, host.environ),
            publish=lambda kind, **fields: self._observe(kind, **fields),
            environ=host.environ,
            logs=self._settings.run_logs(run_id),
            folder=self._settings.run_folder / run_id,
            port=request.port,
            target_context=request.target_context,
            gate_ttft_ms=request.gate_ttft_ms,
            static_fit_check=request.static_fit_check,
        )

    def _observe(self, kind: str, **fields: Any) -> None:
        if self._active is not None and self._active.runner is not None:
            self._active.runner.observe(kind, **fields)

    # --- the life of a run ---------------------------------------------------------------------------

    async def _carry_through(self, active: Active, runner: Runner, bench: Bench) -> None:
        """Search to the end and write that end down, whatever happens on the way."""
        structlog.contextvars.bind_contextvars(run_id=active.run_id)
        try:
            await uncancelled(self._search_and_close(runner, bench))
        finally:
            self._release(active)

    async def _search_and_close(self, runner: Runner, bench: Bench) -> None:
        self._announce(runner)
        outcome = Outcome(ExitReason.INTERNAL_ERROR)
        error: dict[str, Any] | None = None
        try:
            outcome = await runner.search()
        except Exception as caught:
            log.exception("run failed")
            error = {
                "code": "internal_error",
                "message": f"{type(caught).__name__}: {caught}",
                "detail": None,
            }
        finally:
            runner.enter("restoring")
            await bench.processes.close()
            await asyncio.to_thread(shutil.rmtree, bench.folder, ignore_errors=True)
        await self._close_run(runner, outcome, error)

    def _announce(self, runner: Runner) -> None:
        planned = runner.plan
        self._events.publish(
            "run.started",
            runner.run_id,
            candidates=[candidate.model for candidate in planned.candidates],
            cells=len(planned.cells),
            target_context=planned.request.target_context,
            max_duration_s=planned.request.max_duration,
        )
        for warning in planned.warnings:
            self._events.publish("log", runner.run_id, level="warning", message=warning)
        log.info("run started", candidates=len(planned.candidates), cells=len(planned.cells))
