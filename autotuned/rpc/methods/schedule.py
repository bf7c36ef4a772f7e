"""`schedule.get`, `schedule.set` and `schedule.run_now`: the nightly re-tune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from autotuned.core.schedule import Schedule
from autotuned.documents.schedule import BegunDocument, ScheduleDocument
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, Services
from autotuned.shared import wire
from autotuned.store.schedule import KEPT

SHOWN = 20


class ScheduleGetParams(Params):
    """How many of the newest decisions to give back."""

    history: Annotated[int, Field(ge=0, le=KEPT)] = SHOWN


def methods(services: Services) -> list[Method]:
    """Look, set, and begin by hand."""
    nightly = services.nightly

    async def get(_: Connection, params: ScheduleGetParams) -> ScheduleDocument:
        return await nightly.get(params.history)

    async def change(_: Connection, params: Mapping[str, object]) -> ScheduleDocument:
        await nightly.set(params)
        return await nightly.get(SHOWN)

    async def run_now(_: Connection, __: Params) -> BegunDocument:
        run_id = await nightly.run_now()
        return {**await nightly.get(SHOWN), "run_id": run_id}

    begins = (wire.BUSY, wire.PROVIDER_CONFLICT, wire.SHUTTING_DOWN)
    looks, sets = "the schedule and its decisions", "set the schedule anew, or switch it off or on"
    hand = "begin the scheduled run by hand"
    return [
        Method("schedule.get", looks, get),
        Method("schedule.set", sets, change, raw=Schedule, acts=True),
        Method("schedule.run_now", hand, run_now, begins, acts=True),
    ]
