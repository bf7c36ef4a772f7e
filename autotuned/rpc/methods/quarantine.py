"""`quarantine` and `quarantine.clear`: configurations that took the machine down."""

from __future__ import annotations

from autotuned.documents.doctor import QuarantineDocument
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params, Services
from autotuned.shared import wire


class ClearParams(Params):
    """Which entry is lifted; all where it is left out."""

    entry: int | None = None


def methods(services: Services) -> list[Method]:
    """Look, and lift."""
    quarantine = services.agent.quarantine

    async def entries(_: Connection, __: Params) -> QuarantineDocument:
        return {"entries": await quarantine.document(), "cleared": []}

    async def clear(_: Connection, params: ClearParams) -> QuarantineDocument:
        cleared = await quarantine.clear(params.entry)
        return {"entries": await quarantine.document(), "cleared": cleared}

    looks = "configurations that took the machine down, and are not started again"
    lifts = "let a configuration be started again"
    return [
        Method("quarantine", looks, entries),
        Method("quarantine.clear", lifts, clear, (wire.NOT_FOUND,)),
    ]
