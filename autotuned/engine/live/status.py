"""What `status` says of the live provider: what is so now, else how old the look is.

Looking costs a few processes, so it is done once a second at most, and never while a run measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from autotuned.core.lease import Job, Lease, State, Unit
from autotuned.documents.provider import LiveProviderDocument
from autotuned.host.find import Finder, Found, Managed
from autotuned.host.machine import running_since
from autotuned.host.managers.systemd import UnitState
from autotuned.shared.launchctl import LoadedJob, Presence

FRESH_S = 1.0
"""A younger look is what is so now; so long at most a caller waits for a new one."""


class Sighting:
    """The newest look at the live provider."""

    def __init__(self, finder: Finder, look: Callable[[], Found]) -> None:
        self._finder, self._look = finder, look
        self._seen: LiveProviderDocument | None = None
        self._at: float | None = None
        self._looking: asyncio.Task[None] | None = None
        self.still = False
        """True while a run measures: nobody looks then."""

    async def document(self, lease: Lease | None) -> LiveProviderDocument | None:
        """The `live_provider` of `status`; None where none is known."""
        if not self.still and (self._at is None or time.monotonic() - self._at > FRESH_S):
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._refresh(), name="live provider")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FRESH_S):
                    await asyncio.shield(self._looking)
        shown = self._seen
        if lease is not None:
            return _leased(lease, None if self.still else shown)
        age_s = None if self._at is None else round(time.monotonic() - self._at, 1)
        return None if shown is None else {**shown, "age_s": age_s}

    def forget(self) -> None:
        """What was seen is not true any more."""
        self._at = self._seen = None

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _refresh(self) -> None:
        self._seen = await asyncio.to_thread(self._describe)
        self._at = time.monotonic()

    def _describe(self) -> LiveProviderDocument | None:
        live = self._look().live or self._finder.unloaded()
        if live is None:
            return None
        shown: LiveProviderDocument = {
            "kind": "foreground",
            "pid": None,
            "state": "running",
            "port": live.port,
            "healthy": not self._finder.ports.is_free(live.port),
            "loaded": None,
            "running": True,
            "runs": None,
        }
        if isinstance(live, Managed) and live.whose is None:
            job = live.job
            loaded = job.presence is Presence.LOADED
            unit = isinstance(job, UnitState)
            if unit:
                shown |= {"kind": "systemd", "unit": job.label, "scope": job.domain}
            else:
                shown |= {"kind": "launchd", "label": job.label, "domain": job.domain}
            shown |= {
                "pid": job.pid if job.running else None,
                "state": "running" if job.running else _state(job),
                "loaded": None if job.presence is Presence.UNKNOWN else loaded,
                "running": None if job.presence is Presence.UNKNOWN else job.running,
                "runs": None if unit else job.runs,
                "plist": None if live.plist is None else str(live.plist),
            }
        else:
            shown["pid"] = live.job.pid if isinstance(live, Managed) else live.pid
        return {**shown, "since": running_since(shown["pid"])}


def _state(job: LoadedJob) -> str:
    return "not loaded" if job.presence is Presence.MISSING else job.state or job.presence.value


def _leased(lease: Lease, seen: LiveProviderDocument | None) -> LiveProviderDocument:
    """What a lease is on; the rest as it was just `seen`, where somebody may look."""
    target, drained = lease.target, lease.state is State.DRAINED
    shown: LiveProviderDocument = {
        "kind": "foreground",
        "pid": target.pid,
        "loaded": None,
        "port": lease.port,
        "state": lease.state.value,
        "healthy": False,
        "running": False if drained else None,
        "since": None,
        "runs": None,
    }
    if isinstance(target, Job):
        shown |= {"kind": "launchd", "label": target.label, "domain": target.domain, "pid": None}
        shown |= {"plist": target.plist, "loaded": False if drained else None}
    elif isinstance(target, Unit):
        shown |= {"kind": "systemd", "unit": target.unit, "scope": target.scope, "pid": None}
    if seen is not None and seen["kind"] == shown["kind"]:
        shown |= {"pid": seen["pid"], "healthy": seen["healthy"]}
        shown |= {"loaded": seen["loaded"], "running": seen["running"]}
        shown |= {"since": seen["since"], "runs": seen["runs"]}
    return shown
