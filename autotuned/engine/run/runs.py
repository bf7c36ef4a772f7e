"""What the agent can be asked about runs: start, cancel, wait, status, result.

One run at a time. A request is refused here at once (config error, conflict, busy), or it becomes a
run whose every end is written down and published. Must not know the wire, nor flags of servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
from collections.abc import Mapping
from dataclasses import replace

import structlog

from autotuned.core import search
from autotuned.core.candidates import size_b
from autotuned.core.plan import Plan, Repeats, plan
from autotuned.core.request import TuneRequest, fitted, parse, usable
from autotuned.core.result import cell_knobs, search_document
from autotuned.descriptions import Descriptions
from autotuned.documents.result import ResultDocument
from autotuned.documents.run import (
    CancelDocument,
    PlanDocument,
    RunDocument,
    StartedDocument,
    SummaryDocument,
    TimedOutDocument,
)
from autotuned.documents.weights import PullDocument
from autotuned.engine.apply.apply import Applier
from autotuned.engine.apply.consent import CONFIGURED_KIND
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.live.preflight import LIVE, conflict, doubts, recipe, served
from autotuned.engine.measure.context import Bench
from autotuned.engine.measure.watchdog import unstopped_s
from autotuned.engine.noise import planned_again, recheck, repetition
from autotuned.engine.quarantine import Inflight, Quarantine
from autotuned.engine.run.documents import run_document, summary
from autotuned.engine.run.lifecycle import Active, Lifecycle
from autotuned.engine.run.records import Records
from autotuned.engine.run.resume import take_up
from autotuned.engine.run.runner import Runner
from autotuned.engine.run.setup import Host, bench, new_run_id, weights_ahead
from autotuned.engine.settings import Configuration
from autotuned.engine.weights import Pulls
from autotuned.errors import (
    AutotunedError,
    Busy,
    ConfigError,
    NotFound,
    RestoreOutstanding,
    ShuttingDown,
)
from autotuned.host import others as programs
from autotuned.host.find import Found
from autotuned.providers.binary import install_extra
from autotuned.providers.server import Binary, Provider
from autotuned.settings import Settings
from autotuned.store.runs import RunRow, Which
from autotuned.weights.cache import require_paths
from autotuned.weights.prewarm import Prewarmer
from autotuned.weights.verified import Ledger

FINISHING_S = 60.0

log = structlog.get_logger(__name__)


class Agent:
    def __init__(
        self,
        configuration: Configuration,
        records: Records,
        events: Events,
        host: Host,
        live: LiveProvider,
        applier: Applier,
    ) -> None:
        self._configuration, self._records = configuration, records
        self._events, self._host, self._live = events, host, live
        self._applier = applier
        self._lifecycle = Lifecycle(
            lambda: configuration.now, records, events, live, applier, host.awake
        )
        ledger = Ledger(configuration.now.run_folder / "weights.json")
        self.prewarmer = Prewarmer(host.environ, ledger)
        inflight = Inflight(configuration.now.run_folder, host.environ)
        self.quarantine = Quarantine(records.database, inflight)
        self._active: Active | None = None
        self._stopping = False
        self.pulls = Pulls(
            self.prewarmer, events, host.machine, self._provider, active_run=self.active_run
        )

    @property
    def _settings(self) -> Settings:
        """Those in use now; a run keeps what its bench was made of."""
        return self._configuration.now

    # --- starting --------------------------------------------------------------------------------

    async def start(self, params: Mapping[str, object]) -> StartedDocument:
        """Validate, look for conflicts, begin: `{run_id, state, warnings}`.

        Raises ConfigError, ProviderMissing or ProviderConflict (each leaves a run row, its id is in
        the error's data), Busy, RestoreOutstanding or ShuttingDown.
        """
        return await self._admit(params, None)

    async def measure_noise(
        self, run_id: str | None, pairs: int, idle_s: float, **wishes: object
    ) -> StartedDocument:
        """Begin to repeat the best cells of an earlier run: as `start`, and it raises as that does."""
        params, again = await repetition(self._records, run_id, pairs, idle_s, wishes)
        return await self._admit(params, again)

    async def check(self, wishes: Mapping[str, object]) -> StartedDocument:
        """Begin to measure the applied recipe once: as `start`, and it raises as that does."""
        params, again = await recheck(self._records, wishes)
        return await self._admit(params, again)

    async def _admit(self, params: Mapping[str, object], again: Repeats | None) -> StartedDocument:
        active = await self.claim()
        try:
            return await self._begin(active, params, again, unstopped_s(self._host.sleep))
        except BaseException:
            self._live.unclaim()
            self.release(active)
            raise

    async def claim(self) -> Active:
        """Become the one who measures, until `release`. Raises Busy, RestoreOutstanding or ShuttingDown."""
        self._refuse_while_stopping()
        await self._live.paid_meanwhile()
        self.pulls.refuse_while_active()
        if self._active is not None:
            message = f"run {self._active.run_id} is active: wait for it, or cancel it"
            raise Busy(message, run_id=self._active.run_id)
        owed = self._live.public()
        if owed is not None:
            message = (
                f"a live provider that run {owed['run_id']} drained is not back yet "
                f"({owed['reason'] or owed['state']}): autotunectl provider restore"
            )
            raise RestoreOutstanding(message, lease=owed)
        self._active = Active(new_run_id())
        return self._active

    def pull(
        self, model: str, provider: str | None, *, verify: bool, static_fit_check: bool
    ) -> PullDocument:
        """Begin to bring a model in, beside no run. Raises as `Pulls.start` does, or ShuttingDown."""
        self._refuse_while_stopping()
        return self.pulls.start(model, provider, verify=verify, static_fit_check=static_fit_check)

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            message = "the agent is shutting down"
            raise ShuttingDown(message)

    def _provider(self, kind: str | None) -> Provider:
        return self._host.choose(kind or self._settings.provider.kind)

    async def dry_run(self, params: Mapping[str, object]) -> PlanDocument:
        """The plan of a request, and what stands in its way; changes nothing. Raises as `start` does."""
        request = parse(params, self.descriptions)
        provider, binary, planned = await self.prepare(request)
        found = await self._live.find(provider, request.port)
        planned = planned.warned(await self._doubts(found, request, binary))
        memory = self._host.machine.facts().ram_bytes if request.static_fit_check else None
        weights = await weights_ahead(self.prewarmer, planned, provider.weights, memory)
        large = len(planned.cells) > search.GRID_CELLS or not planned.plain
        return {
            "provider": provider.kind,
            "binary": list(binary.command),
            "binary_version": binary.version,
            **weights,
            "cells": [cell_knobs(knobs) for part in planned.parts() for knobs in part.cells],
            "conflicts": found.names,
            "estimate_s": await self._records.estimate_s(planned),
            "max_duration_s": request.max_duration,
            "warnings": list(planned.warnings),
            "search": search_document(planned) if large else None,
            "cell_s": await self._records.trial_s(planned, same=False),
        }

    async def _begin(
        self, active: Active, params: Mapping[str, object], again: Repeats | None, began: float
    ) -> StartedDocument:
        await asyncio.to_thread(self._host.machine.refresh)
        resumed = prepared = None
        try:
            asked = parse(params, self.descriptions)
            resumed = await take_up(self._records, asked, params)
            request = asked if resumed is None else resumed.request
            prepared = provider, binary, planned = await self.prepare(request)
            request = planned.request
            planned = planned_again(planned, again)
            if resumed is not None:
                facts, answer = self._host.machine.facts(), self._settings.provider.max_tokens
                resumed.check(facts, binary.version, planned, answer)
                active.run_id = resumed.row.run_id
            found = await self._live.find(provider, request.port)
            refused = conflict(found, request)
            if refused is not None:
                raise refused
            planned = planned.warned(await self._doubts(found, request, binary))
            if request.confirm and provider.kind == CONFIGURED_KIND:
                config, context = self._settings.provider_config, request.target_context
                live = await asyncio.to_thread(recipe, found, config, context)
                planned = replace(planned, live_recipe=live)
            if found:
                self._live.claim(active.run_id, found, request)
        except AutotunedError as error:
            if resumed is not None and active.run_id == resumed.row.run_id:
                active.run_id = new_run_id()  # the run itself stays as it is
            await self._records.refuse(active.run_id, usable(params), error, prepared)
            error.data = {**error.data, "run_id": active.run_id, "exit_reason": error.kind}
            raise

        made = bench(
            self._host,
            self._settings,
            self.prewarmer,
            self.quarantine,
            active.run_id,
            request,
            provider,
            binary,
            active.publish,
            active.enter,
        )
        if resumed is None:
            answer = self._settings.provider.max_tokens
            await self._records.begin(active.run_id, planned, provider.kind, binary.version, answer)
        else:
            await self._records.reopen(active.run_id)
        active.runner = Runner(
            active.run_id, planned, made, self._records.database, self._events, began
        )
        active.runner.progress.cell_s = await self._records.trial_s(planned, same=True)
        work = self._carry_through(active, active.runner, made)
        active.task = asyncio.create_task(work, name=f"run {active.run_id}")
        begun: StartedDocument = {
            "run_id": active.run_id,
            "state": "running",
            "warnings": list(planned.warnings),
        }
        if request.apply:
            begun["apply"] = True
        return begun

    async def _doubts(self, found: Found, request: TuneRequest, binary: Binary) -> list[str]:
        """What is known before a run that may spoil it, or that it would leave behind."""
        host = self._host
        others = asyncio.to_thread(programs.beside, host.environ, host.marker, found.pids)
        return [*doubts(found, request, binary, self._settings), *await others]

    async def prepare(self, request: TuneRequest) -> tuple[Provider, Binary, Plan]:
        """What would serve a request's candidates, and in which order they are tried; changes nothing.

        Raises ConfigError or ProviderMissing.
        """
        environ = self.prewarmer.environ
        require_paths("candidate_models", request.candidate_models or (), environ)
        for name, axis in request.axes.items():
            weights = [str(value) for value in axis if str(value).endswith(".gguf")]
            require_paths(f"axes.{name}", weights, environ)
        provider = self._provider(request.provider)
        binary = await provider.locate()
        request, live_model = await self._with_live(request, provider)
        request = fitted(request, provider.kind, provider.spec)
        entries = provider.catalogue
        if request.candidates is not None:
            entries = self.descriptions.entries(request.candidates)
        catalogue = [(entry.model, entry.size_b or size_b(entry.model)) for entry in entries]
        answer = self._settings.provider.max_tokens
        planned = plan(request, catalogue, answer, secrets.randbelow(2**31), provider.spec)
        if planned.trials is not None and importlib.util.find_spec("optuna") is None:
            name, rule = "search", f"needs Optuna: {install_extra('search')}"
            raise ConfigError(name, request.search, rule)
        planned = replace(planned, live_model=live_model)
        models = [candidate.model for candidate in planned.candidates]
        doubt = await self._applier.doubt(request, provider.kind, models)
        if doubt is not None:
            planned = planned.warned([doubt])
        return provider, binary, planned

    @property
    def descriptions(self) -> Descriptions:
        return self._settings.descriptions

    async def _with_live(
        self, request: TuneRequest, provider: Provider
    ) -> tuple[TuneRequest, str | None]:
        """The request with the candidate `live` put in by its name, and that name."""
        asked = request.candidate_models or ()
        if LIVE not in asked:
            return request, None
        found = await self._live.find(provider, 0)
        configured = provider.kind == CONFIGURED_KIND
        model = await served(found, self._settings.provider_config, configured=configured)
        models = tuple(model if each == LIVE else each for each in asked)
        # What serves already is not written anew: a configuration may name it otherwise.
        kept = {"knobs_only": request.knobs_only or set(asked) == {LIVE}}
        return request.model_copy(update={"candidate_models": models, **kept}), model

    async def _carry_through(self, active: Active, runner: Runner, made: Bench) -> None:
        try:
            await self._lifecycle.carry_through(runner, made)
        finally:
            self.release(active)

    def release(self, active: Active) -> None:
        active.ended.set()
        if self._active is active:
            self._active = None

    # --- asking ------------------------------------------------------------------------------------

    def cancel(self, run_id: str | None) -> CancelDocument:
        """Ask the active run to end; idempotent, and no error for one that has ended."""
        active = self._active
        if active is None or active.runner is None or run_id not in (None, active.run_id):
            return {"run_id": run_id, "state": "finished", "cancelled": False}
        active.runner.cancel()
        return {"run_id": active.run_id, "state": "running", "cancelled": True}

    async def wait(
        self, run_id: str | None, timeout_s: float | None
    ) -> SummaryDocument | TimedOutDocument:
        """The summary of a run once it has ended, or `{timed_out: true}`. Raises NotFound."""
        active = self._active
        if active is not None and run_id in (None, active.run_id):
            run_id = active.run_id
            try:
                async with asyncio.timeout(timeout_s):
                    await active.ended.wait()
            except TimeoutError:
                return {"timed_out": True}
        return summary(await self._records.row(run_id), running=False)

    async def status(self, run_id: str | None) -> RunDocument | None:
        """A run's document: of the active run, else the latest that searched; None without one. Raises NotFound."""
        row = await self._shown(run_id)
        if row is None:
            return None
        active = self._active
        runner = active.runner if active is not None and active.run_id == row.run_id else None
        history = await self._records.history(row.run_id)
        return run_document(row, await self._records.details(row.run_id), history, runner)

    async def _shown(self, run_id: str | None) -> RunRow | None:
        """The run that was asked for, else the active one as soon as it has a row, else the newest that searched."""
        if run_id is not None:
            return await self._records.row(run_id)
        if self._active is not None:
            with contextlib.suppress(NotFound):
                return await self._records.row(self._active.run_id)
        return await self._records.latest(Which.SEARCHED)

    def active_run(self) -> str | None:
        return self._active.run_id if self._active is not None else None

    def begun_run(self) -> str | None:
        """The id of the run in progress once its preflight has passed: before that nobody has been told of it."""
        active = self._active
        return active.run_id if active is not None and active.runner is not None else None

    async def result(self, run_id: str | None) -> ResultDocument:
        """The public document of a run, finished or not. Raises NotFound."""
        row = await self._records.row(run_id)
        return await self._records.result(row, running=row.run_id == self.active_run())

    async def close(self) -> None:
        """Cancel the active run and see it through to its end; take no new one."""
        self._stopping = True
        with contextlib.suppress(OSError):
            # Whatever ends from here on, ends because it is asked to.
            await asyncio.to_thread(self.quarantine.inflight.close)
        await self.pulls.close()
        active = self._active
        if active is None:
            return
        self.cancel(active.run_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISHING_S):
                await active.ended.wait()
