"""`schedule.get`, `schedule.set` and `schedule.run_now`: the nightly re-tune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from autotuned.core.schedule import Schedule
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.rpc.methods.context import Pieces
from autotuned.shared import wire
from autotuned.store.schedule import KEPT

SHOWN = 20


class ScheduleGetParams(Params):
    """How many of the newest decisions to give back."""

    history: Annotated[int, Field(ge=0, le=KEPT)] = SHOWN


class DecisionDocument(BaseModel):
    """One decision; `night` is the local date of the night, `outcome` how the run that it began has ended."""

    at: str
    night: str | None
    decision: Literal["fired", "skipped", "waiting", "missed"]
    reason: str
    run_id: str | None
    outcome: str | None


class ScheduleDocument(Schedule):
    """The schedule, when a run may begin next, why it has paused itself, and the newest decisions first.

    `fault`: why it cannot fire although it is on.
    """

    next_run_at: str | None
    paused: str | None
    fault: str | None = None
    set_at: str | None
    history: list[DecisionDocument]


class BegunDocument(ScheduleDocument):
    """The same, and the run that has begun."""

    run_id: str


def methods(pieces: Pieces) -> list[Method]:
    """Look, set, and begin by hand."""
    nightly = pieces.nightly

    async def get(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        return await nightly.get(params["history"])

    async def change(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        await nightly.set(params)
        return await nightly.get(SHOWN)

    async def run_now(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        run_id = await nightly.run_now()
        return {**await nightly.get(SHOWN), "run_id": run_id}

    begins = (wire.BUSY, wire.PROVIDER_CONFLICT, wire.SHUTTING_DOWN)
    looks, sets = "the schedule and its decisions", "set the schedule anew, or switch it off or on"
    hand = "begin the scheduled run by hand"
    return [
        Method("schedule.get", looks, get, ScheduleGetParams, ScheduleDocument),
        Method(
            "schedule.set",
            sets,
            change,
            Schedule,
            ScheduleDocument,
            validates_itself=True,
            acts=True,
        ),
        Method("schedule.run_now", hand, run_now, result=BegunDocument, errors=begins, acts=True),
    ]
