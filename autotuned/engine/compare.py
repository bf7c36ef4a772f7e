"""Which results stand side by side: the two of `compare`, and all of `history`.

Of two, a run that is named counts when it has a recommendation, also a partial one; a run that is
looked for must have ended `ok`.
"""

from __future__ import annotations

import json

from autotuned.core.check import cell_of
from autotuned.core.compare import comparable
from autotuned.core.result import knobs_document
from autotuned.documents.compare import HistoryDocument, PastDocument
from autotuned.documents.result import RecommendationDocument, ResultDocument
from autotuned.engine.run.records import Records
from autotuned.errors import NotFound
from autotuned.shared.knobs import read
from autotuned.store.runs import RunRow, Which

LOOKED_AT = 50
"""Good runs that are looked through: those of a prototype have no document and are passed over."""


async def pair(
    records: Records, a: str | None, b: str | None
) -> tuple[ResultDocument, ResultDocument]:
    """The documents of `a` and `b`, the earlier first where both are looked for.

    Left out: `b` is the newest good run other than `a`, `a` the good run before `b`. Raises NotFound
    naming what is missing.
    """
    if a is not None and b is not None:
        return await _named(records, a), await _named(records, b)
    if a is not None:
        first = await _named(records, a)
        return first, await _good(
            records, None, a, f"no good run other than {a} to compare it with"
        )
    if b is not None:
        second = await _named(records, b)
        return await _good(records, b, b, f"no good run before {b} to compare it with"), second
    second = await _good(records, None, None, "no good run yet, and a comparison needs two")
    only = second["run_id"]
    first = await _good(
        records, only, only, f"one good run only, {only}, and a comparison needs two"
    )
    return first, second


async def _named(records: Records, run_id: str) -> ResultDocument:
    row = await records.row(run_id)
    document = await records.result(row, running=False)
    if not comparable(document):
        how = "has not ended" if row.ended_at_utc is None else f"ended as {row.exit_reason}"
        message = f"run {run_id} has no recommendation to compare: it {how}"
        raise NotFound(message, run_id=run_id)
    return document


async def _good(
    records: Records, before: str | None, other_than: str | None, missing: str
) -> ResultDocument:
    for row in await records.recent(LOOKED_AT, before, Which.GOOD):
        document = await records.result(row, running=False)
        if row.run_id != other_than and comparable(document):
            return document
    message = f"there is {missing}: autotunectl start --wait makes one"
    raise NotFound(message, run_id=other_than)


async def past(records: Records, limit: int) -> HistoryDocument:
    """The newest good tunes and checks, newest first."""
    entries = [await _past(records, row) for row in await records.recent(limit, None, Which.PAST)]
    return {"history": [entry for entry in entries if entry is not None]}


async def _past(records: Records, row: RunRow) -> PastDocument | None:
    """One entry; None for a check without a verdict, and for a prototype's run."""
    details, trials = await records.details(row.run_id), await records.history(row.run_id)
    checked = details.get("check")
    if row.purpose == "check":
        cell = trials[-1] if trials else None
        if checked is None or cell is None or cell.knobs is None:
            return None
        model, knobs = cell.model, cell.knobs
        tps, ttft = checked["tps_median"], checked["ttft_p95_ms"]
    else:
        if not details:  # a prototype's recommendation may be anything
            return None
        answer: RecommendationDocument = json.loads(row.recommendation_json or "{}")
        model, knobs = answer["model"], read(answer["knobs"])
        tps, ttft, cell = answer["tps_median"], answer["ttft_p95_ms"], cell_of(trials, knobs)
    return {
        "run_id": row.run_id,
        "kind": "tune" if checked is None else "check",
        "at": row.started_at_utc,
        "trigger": details.get("trigger", "manual"),
        "os_version": row.machine_os_version,
        "provider": details.get("provider"),
        "binary_version": row.binary_version,
        "power_source": None if cell is None else cell.conditions.power_source,
        "model": model,
        "knobs": knobs_document(knobs),
        "target_context": row.target_context,
        "tps_median": tps,
        "ttft_p95_ms": ttft,
        "applied": bool(row.applied),
        "check": checked,
    }
