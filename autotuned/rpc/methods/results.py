"""What runs have found beyond documents: `answers`, `compare`, `history`, `noise`, `report` and `stale`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from autotuned.core.compare import compare
from autotuned.core.quality import answers_document
from autotuned.documents.compare import ComparisonDocument, HistoryDocument
from autotuned.documents.quality import AnswersDocument
from autotuned.documents.run import StartedDocument
from autotuned.documents.schedule import StaleResult
from autotuned.engine.compare import pair, past
from autotuned.engine.run.documents import trial_document
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.shared import wire
from autotuned.store import events

PAIRS, IDLE_S = 10, 60.0
PAST = 100
"""Entries of the history that a report looks at."""
HTML = {"type": "object", "properties": {"html": {"type": "string"}}, "required": ["html"]}


class CompareParams(Params):
    """Two runs; where one is left out, a good run beside the other; both: the last two good ones."""

    a: str | None = None
    b: str | None = None


class HistoryParams(Params):
    """How many of the newest to give back."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class CheckParams(Params):
    """How a measurement is made; as for `start`."""

    max_duration: float | None = None
    port: int | None = None
    drain: bool | None = None
    drain_grace: float | None = None
    restart_foreground: bool | None = None
    retain_runs: int | None = None


class NoiseParams(RunParams, CheckParams):
    """Whose best cells, how many pairs, how long the machine rests before each; the rest is as for `start`.

    `run_id` left out: the last good run.
    """

    pairs: Annotated[int, Field(ge=1, le=1000)] = PAIRS
    idle_s: Annotated[float, Field(ge=0, le=86_400)] = IDLE_S


def _page(*parts: Any) -> str:
    from autotuned.report.page import render  # noqa: PLC0415 - an agent that makes no page saves jinja2

    return render(*parts)


def methods(services: Services) -> list[Method]:
    """What is told of runs that have ended; `noise` begins one that measures."""
    records = services.records

    async def compared(_: Connection, params: Mapping[str, Any]) -> ComparisonDocument:
        first, second = await pair(records, params["a"], params["b"])
        return compare(first, second)

    async def history(_: Connection, params: Mapping[str, Any]) -> HistoryDocument:
        return await past(records, params["limit"])

    async def check(_: Connection, params: Mapping[str, Any]) -> StartedDocument:
        return await services.agent.check(params)

    async def noise(_: Connection, params: Mapping[str, Any]) -> StartedDocument:
        return await services.agent.measure_noise(**params)

    async def answers(_: Connection, params: Mapping[str, Any]) -> AnswersDocument:
        row = await records.row(params["run_id"])
        return answers_document(await records.trials(row.run_id))

    async def report(_: Connection, params: Mapping[str, Any]) -> dict[str, str]:
        document = await services.agent.result(params["run_id"])
        run_id = document["run_id"]
        history = await records.trials(run_id)
        entered = await records.database.ask(events.of_type, run_id, "phase")
        phases = [(str(event.fields["phase"]), event.ts) for event in entered]
        trials = [trial_document(trial) for trial in history]
        # A page with thousands of dots takes a while, and a request may be being measured meanwhile.
        asked = answers_document(history)["tasks"]
        known = (await past(records, PAST))["history"]
        return {"html": await asyncio.to_thread(_page, document, trials, phases, asked, known)}

    async def stale(_: Connection, __: Mapping[str, Any]) -> StaleResult:
        return (await services.staleness.look()).document()

    differs = "two runs, knob by knob and figure by figure, set against their noise"
    over_time = "good tunes and checks over time: recipe, machine, figures and verdicts"
    again = "measure the applied recipe again, one start, against its cell in its run"
    begins = "measure the machine's own noise: the best cells of a run, again and again"
    begun = (
        wire.NOT_FOUND,
        wire.BUSY,
        wire.PROVIDER_CONFLICT,
        wire.RESTORE_OUTSTANDING,
        wire.SHUTTING_DOWN,
    )
    shows = "a run, finished or not, as one self-contained HTML page"
    asks = "what has changed since the last good run"
    asked_of = "what the cells of a run answered to the quality guard, side by side"
    unknown = (wire.NOT_FOUND,)
    return [
        Method("answers", asked_of, answers, RunParams, AnswersDocument, unknown),
        Method("compare", differs, compared, CompareParams, ComparisonDocument, unknown),
        Method("history", over_time, history, HistoryParams, HistoryDocument),
        Method("check", again, check, CheckParams, StartedDocument, begun),
        Method("noise", begins, noise, NoiseParams, StartedDocument, begun),
        Method("report", shows, report, RunParams, HTML, unknown),
        Method("stale", asks, stale, result=StaleResult),
    ]
