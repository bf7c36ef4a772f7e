"""What runs have found beyond documents: `answers`, `compare`, `history`, `noise`, `report` and `stale`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from pydantic import Field

from autotuned.core.compare import compare
from autotuned.core.quality import answers_document
from autotuned.documents.compare import ComparisonDocument, HistoryDocument
from autotuned.documents.result import AnswersDocument
from autotuned.documents.run import StartedDocument
from autotuned.documents.schedule import StaleResult
from autotuned.engine.compare import pair, past
from autotuned.engine.run.documents import trial_document
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, RunParams, Services
from autotuned.rpc.methods.runs import STARTED
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


def methods(services: Services) -> list[Method]:
    """What is told of runs that have ended; `noise` begins one that measures."""
    records = services.records

    async def compared(_: Connection, params: CompareParams) -> ComparisonDocument:
        first, second = await pair(records, params.a, params.b)
        return compare(first, second)

    async def history(_: Connection, params: HistoryParams) -> HistoryDocument:
        return await past(records, params.limit)

    async def check(_: Connection, params: CheckParams) -> StartedDocument:
        return await services.agent.check(params.model_dump())

    async def noise(_: Connection, params: NoiseParams) -> StartedDocument:
        return await services.agent.measure_noise(**params.model_dump())

    async def answers(_: Connection, params: RunParams) -> AnswersDocument:
        row = await records.row(params.run_id)
        return answers_document(await records.trials(row.run_id))

    async def report(_: Connection, params: RunParams) -> dict[str, str]:
        from autotuned.report import page  # noqa: PLC0415 - an agent that makes no page saves jinja2

        document = await services.agent.result(params.run_id)
        run_id = document["run_id"]
        history = await records.trials(run_id)
        entered = await records.database.ask(events.of_type, run_id, "phase")
        phases = [(str(event.fields["phase"]), event.ts) for event in entered]
        trials = [trial_document(trial) for trial in history]
        # A page with thousands of dots takes a while, and a request may be being measured meanwhile.
        asked = answers_document(history)["tasks"]
        known = (await past(records, PAST))["history"]
        return {
            "html": await asyncio.to_thread(page.render, document, trials, phases, asked, known)
        }

    async def stale(_: Connection, __: Params) -> StaleResult:
        return (await services.staleness.look()).document()

    differs = "two runs, knob by knob and figure by figure, set against their noise"
    over_time = "good tunes and checks over time: recipe, machine, figures and verdicts"
    again = "measure the applied recipe again, one start, against its cell in its run"
    begins = "measure the machine's own noise: the best cells of a run, again and again"
    begun = (wire.NOT_FOUND, *STARTED)
    shows = "a run, finished or not, as one self-contained HTML page"
    asks = "what has changed since the last good run"
    asked_of = "what the cells of a run answered to the quality guard, side by side"
    unknown = (wire.NOT_FOUND,)
    return [
        Method("answers", asked_of, answers, unknown),
        Method("compare", differs, compared, unknown),
        Method("history", over_time, history),
        Method("check", again, check, begun),
        Method("noise", begins, noise, begun),
        Method("report", shows, report, unknown, result=HTML),
        Method("stale", asks, stale),
    ]
