"""`noise`: what the machine's own noise is, measured as a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from autotuned.rpc import documents
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method
from autotuned.rpc.methods.context import Pieces, RunParams
from autotuned.shared import wire

PAIRS, IDLE_S = 10, 60.0


class NoiseParams(RunParams):
    """Whose best cells, how many pairs, how long the machine rests before each; the rest is as for `start`.

    `run_id` left out: the last good run.
    """

    pairs: Annotated[int, Field(ge=1, le=1000)] = PAIRS
    idle_s: Annotated[float, Field(ge=0, le=86_400)] = IDLE_S
    max_duration: float | None = None
    port: int | None = None
    drain: bool | None = None
    drain_grace: float | None = None
    restart_foreground: bool | None = None
    retain_runs: int | None = None


def methods(pieces: Pieces) -> list[Method]:
    """One method: it begins a run, whose result has what was measured."""

    async def noise(_: Connection, params: Mapping[str, Any]) -> dict[str, Any]:
        return await pieces.agent.measure_noise(params)

    begins = "measure the machine's own noise: the best cells of a run, again and again"
    errors = (
        wire.NOT_FOUND,
        wire.BUSY,
        wire.PROVIDER_CONFLICT,
        wire.RESTORE_OUTSTANDING,
        wire.SHUTTING_DOWN,
    )
    return [Method("noise", begins, noise, NoiseParams, documents.StartedDocument, errors)]
