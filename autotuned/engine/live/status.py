"""What `status` says of the live provider: what was seen a moment ago, and whether its port answers.

Looking costs a few processes, so it is done in the background, seldom, and never while a run measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from autotuned.core.lease import Job, Lease
from autotuned.engine.live.preflight import Found, Managed
from autotuned.host.interface import Ports

FRESH_S = 5.0
FIRST_S = 2.0
"""The very first caller waits this long for the first look."""


class Sighting:
    """The newest look at the live provider."""

    def __init__(self, look: Callable[[], Found], ports: Ports) -> None:
        self._look, self._ports = look, ports
        self._seen: dict[str, Any] | None = None
        self._at: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self.still = False
        """True while a run measures: nobody looks then."""

    async def document(self, lease: Lease | None) -> dict[str, Any] | None:
        """The `live_provider` of `status`; None where none is known."""
        if lease is not None:
            return _leased(lease)
        if not self.still and (self._at is None or time.monotonic() - self._at > FRESH_S):
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._refresh(), name="live provider")
            if self._at is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FIRST_S):
                        await asyncio.shield(self._looking)
        return self._seen

    def forget(self) -> None:
        """What was seen is not true any more."""
        self._at = None

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _refresh(self) -> None:
        self._seen = await asyncio.to_thread(self._describe)
        self._at = time.monotonic()

    def _describe(self) -> dict[str, Any] | None:
        live = self._look().live
        if live is None:
            return None
        healthy = not self._ports.is_free(live.port)
        if isinstance(live, Managed):
            job = live.job
            return {
                "kind": "launchd",
                "label": job.label,
                "domain": job.domain,
                "pid": job.pid,
                "port": live.port,
                "state": "running" if job.running else job.state or job.presence.value,
                "healthy": healthy,
                "plist": None if live.plist is None else str(live.plist),
            }
        return {
            "kind": "foreground",
            "pid": live.pid,
            "port": live.port,
            "state": "running",
            "healthy": healthy,
        }


def _leased(lease: Lease) -> dict[str, Any]:
    target = lease.target
    shown: dict[str, Any] = {"kind": "foreground", "pid": target.pid}
    if isinstance(target, Job):
        shown = {"kind": "launchd", "label": target.label, "domain": target.domain, "pid": None}
        shown["plist"] = target.plist
    return {**shown, "port": lease.port, "state": lease.state.value, "healthy": False}
