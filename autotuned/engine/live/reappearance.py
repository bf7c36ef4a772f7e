"""A drained live provider that runs again though nobody of ours has restored it: who it is, and whether it is ours to stop.

Cheap enough to be asked before and after each replicate: one look at the job, one walk over the processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.command_line import Commands
from autotuned.core.lease import Foreground, Lease, Target
from autotuned.host.find import Finder
from autotuned.shared.identity import started
from autotuned.shared.launchctl import Presence


@dataclass(frozen=True, slots=True)
class Returned:
    """Who has come back. `target` is what a second drain would stop; None for one that we have not drained."""

    name: str
    target: Target | None


def returned(lease: Lease, finder: Finder, commands: Commands) -> Returned | None:
    """Who runs now though `lease` says that it is drained; None when nobody does. Blocks."""
    target = lease.target
    back = _loaded_again(target, finder)
    if back is not None:
        return back
    for process in finder.processes(commands):
        ours = isinstance(target, Foreground) and process.argv == target.argv
        if isinstance(target, Foreground) and ours:
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
