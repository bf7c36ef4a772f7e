"""`quarantine` and `quarantine.clear`: configurations that took the machine down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.rpc import documents
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.rpc.methods.context import Pieces
from autotuned.shared import wire


class ClearParams(Params):
    """Which entry is lifted; all where it is left out."""

    entry: int | None = None


def methods(pieces: Pieces) -> list[Method]:
    """Look, and lift."""
    quarantine = pieces.agent.quarantine

    async def entries(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return {"entries": await quarantine.document(), "cleared": []}

    async def clear(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        cleared = await quarantine.clear(params["entry"])
        return {"entries": await quarantine.document(), "cleared": cleared}

    looks = "configurations that took the machine down, and are not started again"
    lifts = "let a configuration be started again"
    document = documents.QuarantineDocument
    return [
        Method("quarantine", looks, entries, result=document),
        Method("quarantine.clear", lifts, clear, ClearParams, document, (wire.NOT_FOUND,)),
    ]
