"""`version` and `shutdown`: the agent itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from autotuned.rpc import documents
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method
from autotuned.rpc.methods.context import Pieces


def methods(pieces: Pieces) -> list[Method]:
    """Who answers, and how to stop it."""

    async def version(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return pieces.version()

    async def shutdown(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(
            0.05, pieces.shut_down
        )  # after this answer has gone out
        return {}

    return [
        Method(
            "version",
            "who answers, and where its files are",
            version,
            result=documents.VersionDocument,
        ),
        Method(
            "shutdown",
            "stop the agent gracefully, as SIGTERM does",
            shutdown,
            result=documents.Empty,
        ),
    ]
