"""`provider.restore`: do not wait for the agent's next try to bring the live provider back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.rpc import documents
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method
from autotuned.rpc.methods.context import Pieces


def methods(pieces: Pieces) -> list[Method]:
    """The live provider, beyond what `status` says of it."""

    async def restore(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        restored = await pieces.live.restore_now()
        return {"restored": restored, "lease": pieces.live.public()}

    tries = "try now to bring a drained provider back"
    return [Method("provider.restore", tries, restore, result=documents.RestoreDocument, acts=True)]
