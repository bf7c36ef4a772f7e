"""A configuration that took the machine down is started once: written down before its start, refused after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from autotuned.core import quarantine
from autotuned.core.model import Failure
from autotuned.core.quarantine import Configuration, Entry
from autotuned.documents.doctor import QuarantineEntry
from autotuned.errors import NotFound
from autotuned.host.inflight import Inflight
from autotuned.store import quarantine as store
from autotuned.store.database import Database

log = structlog.get_logger(__name__)


class Quarantine:
    def __init__(self, database: Database, inflight: Inflight) -> None:
        self._database, self.inflight = database, inflight

    async def adopt(self) -> None:
        """Take in what ran when the machine went down. Nothing of this is worth an agent that does not start."""
        left = await asyncio.to_thread(self.inflight.left)
        if left is not None:
            record, boot = left
            try:
                entry = _entry(record, boot)
                await self._database.ask(store.add, entry)
                log.warning("the machine went down with a candidate", **entry.document())
            except (KeyError, TypeError, ValueError):
                log.exception("run/inflight.json cannot be read")
        try:
            await asyncio.to_thread(self.inflight.end)
        except OSError as error:
            log.warning("run/inflight.json cannot be removed", reason=str(error))

    async def refusal(self, wanted: Configuration) -> Failure | None:
        """Why this is not started; None where it may be."""
        return quarantine.refusal(await self.entries(), wanted)

    async def entries(self) -> list[Entry]:
        """All of them, oldest first."""
        return await self._database.ask(store.entries)

    async def document(self) -> list[QuarantineEntry]:
        return [entry.document() for entry in await self.entries()]

    async def clear(self, number: int | None) -> list[int]:
        """Lift one entry, or all. Raises NotFound for one that is not there."""
        cleared = await self._database.ask(store.clear, number)
        if number is not None and not cleared:
            message = f"there is no entry {number} in quarantine: see autotunectl quarantine"
            raise NotFound(message, run_id=None)
        return cleared


def _entry(record: Mapping[str, Any], boot: str) -> Entry:
    return Entry(quarantine.parse(record), record["at"], record["run_id"], record["boot_id"], boot)
