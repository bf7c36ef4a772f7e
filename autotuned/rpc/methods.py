"""The table of methods: what each takes, and which piece of the agent answers. No logic.

`start` validates its own request, because its errors leave a run behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from autotuned import __version__, wire
from autotuned.core.recommendation import ResultDocument
from autotuned.core.request import TuneRequest
from autotuned.engine.agent import Agent
from autotuned.engine.events import Events, Subscription
from autotuned.engine.records import Records, summary, trial_document
from autotuned.errors import NotFound
from autotuned.rpc import discover
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.settings import Settings


class StartParams(TuneRequest):
    """The request's fields, and whether only its plan is wanted."""

    dry_run: bool = False


class RunParams(Params):
    """A run; the active or else the newest one where it is left out."""

    run_id: str | None = None


class OneRunParams(Params):
    """A run, named."""

    run_id: str


class RunsParams(Params):
    """How many runs, and after which."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    before: str | None = None


class WaitParams(RunParams):
    """Which run to wait for, and how many seconds at most."""

    timeout_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class SubscribeParams(RunParams):
    """Events of one run or of all; `since` replays what is kept after that number."""

    since: Annotated[int, Field(ge=0)] | None = None


class UnsubscribeParams(Params):
    """Which subscription to end."""

    subscription: str


@dataclass(frozen=True, slots=True)
class Agenda:
    """The pieces that the methods speak to."""

    settings: Settings
    agent: Agent
    records: Records
    events: Events
    started_at: str
    shut_down: Callable[[], None]


def table(pieces: Agenda) -> list[Method]:  # noqa: C901 - a table, each entry simple
    """All methods."""
    agent, records = pieces.agent, pieces.records

    async def version(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "name": "autotuned",
            "version": __version__,
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "started_at": pieces.started_at,
            "socket": str(pieces.settings.socket),
            "db_path": str(pieces.settings.database),
            "provider": pieces.settings.provider.kind,
        }

    async def start(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        request = {name: value for name, value in params.items() if name != "dry_run"}
        if params.get("dry_run") is True:
            return {"plan": await agent.dry_run(request)}
        return await agent.start(request if params.get("dry_run", False) is False else params)

    async def status(connection: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "daemon": await version(connection, params),
            "run": await agent.status(params["run_id"]),
            "live_provider": None,
            "lease": None,
        }

    async def cancel(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        if params["run_id"] is not None:
            await records.row(params["run_id"])
        return agent.cancel(params["run_id"])

    async def result(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        return await agent.result(params["run_id"])

    async def runs(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        rows = await records.recent(params["limit"], params["before"])
        active = agent.active_run()
        return {"runs": [summary(row, running=row.run_id == active) for row in rows]}

    async def trials(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        row = await records.row(params["run_id"])
        return {"trials": [trial_document(trial) for trial in await records.history(row.run_id)]}

    async def wait(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        return await agent.wait(params["run_id"], params["timeout_s"])

    async def subscribe(connection: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        if params["run_id"] is not None:
            await records.row(params["run_id"])
        seq = pieces.events.seq
        subscription = await pieces.events.subscribe(params["run_id"], params["since"])
        connection.keep(subscription.id, lambda: pieces.events.unsubscribe(subscription))
        connection.later(_forward(connection, subscription))
        return {"subscription": subscription.id, "seq": seq}

    async def unsubscribe(connection: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        if not connection.end(params["subscription"]):
            message = f"this connection has no subscription {params['subscription']!r}"
            raise NotFound(message, subscription=params["subscription"])
        return {}

    async def shutdown(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(
            0.05, pieces.shut_down
        )  # after this answer has gone out
        return {}

    async def described(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return discover.document(methods)

    started = (wire.BUSY, wire.PROVIDER_CONFLICT, wire.SHUTTING_DOWN)
    unknown = (wire.NOT_FOUND,)
    methods = [
        Method("version", "who answers, and where its files are", version),
        Method(
            "start",
            "validate, look for conflicts, begin a run",
            start,
            StartParams,
            None,
            started,
            validates_itself=True,
        ),
        Method(
            "status",
            "the agent and the active, else the latest, run",
            status,
            RunParams,
            None,
            unknown,
        ),
        Method("cancel", "ask a run to end; idempotent", cancel, RunParams, None, unknown),
        Method(
            "result", "the public document of a run", result, RunParams, ResultDocument, unknown
        ),
        Method("runs", "a table of runs, newest first", runs, RunsParams),
        Method(
            "trials", "the trials of a run with all samples", trials, OneRunParams, None, unknown
        ),
        Method("wait", "a run's summary once it has ended", wait, WaitParams, None, unknown),
        Method(
            "subscribe",
            "events as notifications on this connection",
            subscribe,
            SubscribeParams,
            None,
            unknown,
        ),
        Method(
            "unsubscribe",
            "end a subscription of this connection",
            unsubscribe,
            UnsubscribeParams,
            None,
            unknown,
        ),
        Method("shutdown", "stop the agent gracefully, as SIGTERM does", shutdown),
        Method("rpc.discover", "this interface as an OpenRPC document", described),
    ]
    return methods


async def _forward(connection: Connection, subscription: Subscription) -> None:
    """Send a subscription's events at the pace at which the client reads them."""
    async for event in subscription:
        connection.notify("event", {"subscription": subscription.id, **event.document()})
        await connection.drained()
    connection.end(subscription.id)
