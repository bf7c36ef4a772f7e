"""What is seen of the live provider: what `status` says of it, and who has brought it back though it was drained.

A look for `status` costs a few processes, so there is one a second at most, and none while a run measures.
One for who is back is cheap enough for each replicate: one look at the job, one walk over the processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from autotuned.core.command_line import Commands
from autotuned.core.lease import Foreground, Job, Lease, State, Target, Unit
from autotuned.documents.provider import LiveProviderDocument
from autotuned.host.find import Finder, Found, Managed
from autotuned.host.machine import running_since
from autotuned.host.managers.systemd import UnitState
from autotuned.shared.identity import started
from autotuned.shared.launchctl import LoadedJob, Presence

FRESH_S = 1.0
"""A younger look is what is so now; so long at most a caller waits for a new one."""


class Sighting:
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


@dataclass(frozen=True, slots=True)
class Returned:
    """Who runs again though nobody of ours has restored it. `target` is what a second drain would stop; None for one that we have not drained."""

    name: str
    target: Target | None


def returned(lease: Lease, finder: Finder, commands: Commands) -> Returned | None:
    """Who runs now though `lease` says that it is drained; None when nobody does. Blocks."""
    target = lease.target
    back = _loaded_again(target, finder)
    if back is not None:
        return back
    for process in finder.processes(commands):
        if isinstance(target, Foreground) and process.argv == target.argv:
            again = replace(target, pid=process.pid, started=started(process.pid))
            return Returned(process.name, again)
        # the job itself may have been loaded between the two looks: it is named as what it is
        return _loaded_again(target, finder) or Returned(process.name, None)
    return None


def _loaded_again(target: Target, finder: Finder) -> Returned | None:
    if isinstance(target, Foreground):
        return None
    service = finder.managers.of(target)
    job = service.look()
    if job.presence is not Presence.LOADED or service.gone(job):
        return None
    seen = None if job.pid is None else started(job.pid)
    return Returned(target.name, replace(target, pid=job.pid, started=seen))
