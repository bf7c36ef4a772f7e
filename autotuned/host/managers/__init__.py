"""Who manages a live server: one small port, with launchd and systemd behind it.

A server that nobody manages was started from a terminal, and is a process of its own. Standard library
only: agent, guardian and break glass act through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from autotuned.core.lease import Job, Unit
from autotuned.host.managers.launchd import LaunchdService
from autotuned.host.managers.systemd import Systemd, SystemdService
from autotuned.shared.launchctl import Launchd, LoadedJob


class ServiceManager(Protocol):
    """One service, through whoever manages it. Nothing here raises or waits beyond a command's deadline."""

    hidden_stop_s: float
    """A stop that was asked for may stay unseen for this long, beside a process that runs."""

    def look(self) -> LoadedJob:
        """What the manager says of it now."""

    def stop(self) -> str | None:
        """Ask for its end and return at once; why that was refused, else None."""

    def gone(self, now: LoadedJob) -> bool:
        """The manager does not run it any more, as it was seen `now`."""

    def start(self, now: LoadedJob, *, rebooted: bool) -> str | None:
        """Ask for its start where it was seen not to run `now`; why that was refused, else None."""

    def last_line(self) -> str:
        """What it has printed last, secrets masked, and where the rest is."""


class Managers:
    """The service managers of this user. `launchctl`: one that was found before, see `Launchd`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        launchctl: str | None = None,
        *,
        launchd: Launchd | None = None,
    ) -> None:
        self.environ = environ
        self.launchd = launchd or Launchd(environ, launchctl)
        self.systemd = Systemd(environ)

    def of(self, target: Job | Unit) -> ServiceManager:
        if isinstance(target, Job):
            return LaunchdService(self.launchd, target)
        return SystemdService(self.systemd, target)

    def holder(self, pid: int) -> LoadedJob | None:
        """The service whose process this is; None where it was started from a terminal."""
        return self.systemd.holder(pid) or self.launchd.holder(pid)
