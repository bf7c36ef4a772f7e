"""`report`: a run as one HTML page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from autotuned.engine.run.records import trial_document
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method
from autotuned.rpc.methods.context import Pieces, RunParams
from autotuned.shared import wire
from autotuned.store import events as kept

HTML = {"type": "object", "properties": {"html": {"type": "string"}}, "required": ["html"]}


def _page(*parts: Any) -> str:
    from autotuned.report.page import render  # noqa: PLC0415 - an agent that makes no page saves jinja2

    return render(*parts)


def methods(pieces: Pieces) -> list[Method]:
    """The report."""

    async def report(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        document = await pieces.agent.result(params["run_id"])
        run_id = document["run_id"]
        history = await pieces.records.history(run_id)
        entered = await pieces.records.database.ask(kept.of_type, run_id, "phase")
        phases = [(str(event.fields["phase"]), event.ts) for event in entered]
        trials = [trial_document(trial) for trial in history]
        # A page with thousands of dots takes a while, and a request may be being measured meanwhile.
        return {"html": await asyncio.to_thread(_page, document, trials, phases)}

    summary = "a run, finished or not, as one self-contained HTML page"
    return [Method("report", summary, report, RunParams, HTML, (wire.NOT_FOUND,))]
