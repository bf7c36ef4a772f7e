"""A configuration that took the machine down is started once: written down before its start, refused after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from autotuned.core import quarantine
from autotuned.core.model import Failure
from autotuned.core.quarantine import Configuration, Entry
from autotuned.documents.doctor import QuarantineEntry
from autotuned.errors import NotFound
from autotuned.host.files import write_atomic
from autotuned.shared.files import sync_folder
from autotuned.shared.identity import boot_id
from autotuned.store import quarantine as store
from autotuned.store.database import Database

UNKNOWN = "unknown"

log = structlog.get_logger(__name__)


class Inflight:
    """Which candidate runs now, on the disk before it starts: a machine that goes down with it leaves this behind.

    It goes when the candidate is stopped, and with the agent's orderly end.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._path = folder / "inflight.json"
        self._boot = boot_id(environ)
        self._closed = False

    def begin(self, record: Mapping[str, object]) -> None:
        """Write down what is to be started; on the disk itself when this returns. Raises OSError."""
        if not self._closed:
            text = json.dumps({**record, "boot_id": self._boot}, ensure_ascii=False)
            write_atomic(self._path, text.encode())

    def end(self) -> None:
        """It is stopped. Idempotent. Raises OSError."""
        if self._path.exists():
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)

    def close(self) -> None:
        """An orderly end, of this agent or of the machine: whatever follows is no candidate's doing. Idempotent."""
        self._closed = True
        self.end()

    def left(self) -> tuple[dict[str, Any], str] | None:
        """What ran when the machine went down, and the boot that it is in now; None where it did not go down."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            before = record["boot_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        same = UNKNOWN in (before, self._boot) or before == self._boot
        return None if same else (record, self._boot)


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
            raise NotFound(message, entry=number)
        return cleared


def _entry(record: Mapping[str, Any], boot: str) -> Entry:
    return Entry(quarantine.parse(record), record["at"], record["run_id"], record["boot_id"], boot)
