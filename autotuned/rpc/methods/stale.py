"""`stale`: whether the last good recipe is still this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method
from autotuned.rpc.methods.context import Pieces


class StaleResult(BaseModel):
    """`stale`: something has changed since the last good run; `never_tuned`: there is none."""

    stale: bool
    never_tuned: bool
    reasons: list[str]
    last_run_id: str | None


def methods(pieces: Pieces) -> list[Method]:
    """One question."""

    async def stale(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return (await pieces.staleness.look()).document()

    asks = "what has changed since the last good run"
    return [Method("stale", asks, stale, result=StaleResult)]
