"""Stopping a live provider within its grace: asked to end, waited for, never killed.

What counts is the state reached: unloaded, its processes gone, both ports free. Writes each step into
the journal before it is taken. Blocks, so it runs beside the loop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from autotuned.core.lease import Event, Foreground, Lease
from autotuned.host import failpoint
from autotuned.host.managers import Managers
from autotuned.host.ports import Ports
from autotuned.host.restore.journal import Journal
from autotuned.shared.identity import alive, started

POLL_S = 0.1
AGAIN_S = 2.0


class Known(NamedTuple):
    """A process that cannot be mistaken for another."""

    pid: int
    started: str | None


class Stopper:
    def __init__(self, journal: Journal, managers: Managers, ports: Ports) -> None:
        self._journal, self._managers, self._ports = journal, managers, ports

    def stop(
        self, lease: Lease, grace_s: float, cancelled: Callable[[], bool]
    ) -> tuple[Lease, str | None]:
        """The lease, and None once everything is gone and both ports are free; else what is not.

        Raises OSError where the journal cannot be written: nothing has been asked to end then.
        """
        lease = self._journal.advance(lease, Event.DRAIN)
        failpoint.reach("drain.begun")
        deadline = time.monotonic() + grace_s
        target = lease.target
        if isinstance(target, Foreground):
            service, family = None, []
            refused = _terminate(target)
        else:
            service, family = self._managers.of(target), _family(target.pid)
            refused = service.stop()
        failpoint.reach("drain.asked")
        if refused is not None:
            return lease, refused
        asked = time.monotonic()
        while True:
            left = self._left(lease, family)
            if left is None:
                break
            if cancelled():
                return lease, "cancelled while the live provider was ending"
            if time.monotonic() >= deadline:
                return lease, f"{target.name}: {left} after the drain grace of {grace_s:g} s"
            if service is not None and time.monotonic() - asked >= AGAIN_S:
                asked = time.monotonic()
                if service.look().running:  # as if nobody had asked, or brought back by somebody
                    service.stop()
            time.sleep(POLL_S)
        failpoint.reach("drain.gone")
        lease = self._journal.advance(lease, Event.GONE)
        failpoint.reach("drain.done")
        return lease, None

    def _left(self, lease: Lease, family: list[Known]) -> str | None:
        target = lease.target
        if not isinstance(target, Foreground):
            service = self._managers.of(target)
            now = service.look()
            if not service.gone(now):
                return f"it is still loaded (state: {now.state or now.reason or 'unknown'})"
            living = [known.pid for known in family if alive(*known)]
            if living:
                return f"its process {living[0]} still lives"
        elif alive(target.pid, target.started):
            return "it still lives"
        for port in (lease.port, lease.candidate_port):
            if not self._ports.is_free(port):
                return f"port {port} is still in use"
        return None


def _terminate(process: Foreground) -> str | None:
    """SIGTERM to that very process and no other; None when it is sent, or not needed any more."""
    if not alive(process.pid, process.started):
        return None
    try:
        os.kill(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return None
    except PermissionError:
        return f"{process.name} belongs to somebody else: stop it yourself"
    return None


def _family(pid: int | None) -> list[Known]:
    """The job's process and what descends from it, before it is asked to end."""
    if pid is None:
        return []
    found = [Known(pid, started(pid))]
    with contextlib.suppress(psutil.Error, OSError):
        found += [
            Known(child.pid, started(child.pid))
            for child in psutil.Process(pid).children(recursive=True)
        ]
    return [known for known in found if known.started is not None]
