"""`start` to `wait`: runs asked for, looked at and ended.

`start` validates its own request, because its errors leave a run behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from autotuned.core.request import TuneRequest
from autotuned.core.result import json_schema
from autotuned.documents import run as documents
from autotuned.documents.result import ResultDocument
from autotuned.documents.trial import TrialsDocument
from autotuned.engine.run.documents import summary, trial_document
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.shared import wire
from autotuned.store.database import set_aside
from autotuned.store.runs import Which


class StartParams(TuneRequest):
    """The request's fields, and whether only its plan is wanted."""

    dry_run: bool = False


class OneRunParams(Params):
    """A run, named."""

    run_id: str


class RunsParams(Params):
    """How many runs, and after which. `all`: with the requests that were refused at the door; `good`: only runs
    that ended `ok` with a recommendation."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    before: str | None = None
    all: bool = False
    good: bool = False


class WaitParams(RunParams):
    """Which run to wait for, and how many seconds at most."""

    timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


STARTED = (wire.BUSY, wire.PROVIDER_CONFLICT, wire.RESTORE_OUTSTANDING, wire.SHUTTING_DOWN)
"""Why a run may not begin."""


def methods(services: Services) -> list[Method]:
    """Everything about runs."""
    agent, records = services.agent, services.records

    async def start(
        _: Connection, params: Mapping[str, object]
    ) -> documents.StartedDocument | documents.DryRunDocument:
        request = {name: value for name, value in params.items() if name != "dry_run"}
        if params.get("dry_run") is True:
            return {"plan": await agent.dry_run(request)}
        return await agent.start(request if params.get("dry_run", False) is False else params)

    async def status(_: Connection, params: RunParams) -> documents.StatusDocument:
        glanced = await services.staleness.glance()
        aside = await asyncio.to_thread(set_aside, records.database.path)
        return {
            "daemon": services.version(),
            "run": await agent.status(params.run_id),
            "refused": await records.refused(),
            "set_aside": [str(each) for each in aside],
            "live_provider": await services.live.sighting.document(services.live.lease),
            "lease": services.live.public(),
            "left_stopped": await services.live.left_stopped(),
            "stale": None if glanced is None else glanced.document(),
            "schedule": await services.nightly.brief(),
            "quarantine": await agent.quarantine.document(),
            "pull": agent.pulls.active.document() if agent.pulls.active else None,
        }

    async def cancel(_: Connection, params: RunParams) -> documents.CancelDocument:
        run_id = params.run_id or agent.begun_run()
        if run_id is None:
            newest = await records.latest(Which.SEARCHED)
            run_id = None if newest is None else newest.run_id
        else:
            await records.row(run_id)
        return agent.cancel(run_id)

    async def result(_: Connection, params: RunParams) -> ResultDocument:
        return await agent.result(params.run_id)

    async def runs(_: Connection, params: RunsParams) -> documents.RunsDocument:
        which = Which.GOOD if params.good else Which.ALL if params.all else Which.BEGUN
        rows = await records.recent(params.limit, params.before, which)
        active = agent.active_run()
        return {"runs": [summary(row, running=row.run_id == active) for row in rows]}

    async def trials(_: Connection, params: OneRunParams) -> TrialsDocument:
        row = await records.row(params.run_id)
        return {"trials": [trial_document(trial) for trial in await records.trials(row.run_id)]}

    async def wait(
        _: Connection, params: WaitParams
    ) -> documents.SummaryDocument | documents.TimedOutDocument:
        return await agent.wait(params.run_id, params.timeout_s)

    unknown = (wire.NOT_FOUND,)
    begin = "validate, look for conflicts, begin a run"
    looks = "the agent and the active run, else the latest that searched"
    samples = "the trials of a run with all samples"
    end, table = "ask a run to end; idempotent", "a table of runs, newest first"
    waits = "a run's summary once it has ended, or after timeout_s that it goes on"
    return [
        Method("start", begin, start, STARTED, raw=StartParams, acts=True),
        Method("status", looks, status, unknown),
        Method("cancel", end, cancel, unknown),
        Method("result", "the public document of a run", result, unknown, result=json_schema()),
        Method("runs", table, runs),
        Method("trials", samples, trials, unknown),
        Method("wait", waits, wait, unknown),
    ]
