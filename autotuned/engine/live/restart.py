"""Making a new configuration live: the commands for it, or the restart of the provider's job itself.

A restart is a drain and a restore with nothing between, under the same lease: whatever dies on the
way, the provider comes back. Must not know what was written, or why.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from autotuned.core.lease import Rollback, Unit
from autotuned.core.request import TuneRequest
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.live.preflight import undrainable
from autotuned.engine.settings import Configuration
from autotuned.errors import ApplyRefused, Busy, RestoreOutstanding
from autotuned.host.children.process import Processes
from autotuned.host.find import Found
from autotuned.host.managers.systemd import UnitState, command
from autotuned.providers.server import Provider
from autotuned.shared.launchctl import domains
from autotuned.writers import ours

log = structlog.get_logger(__name__)


class Restarter:
    """The live provider's job, restarted so that it reads its configuration again."""

    def __init__(
        self,
        live: LiveProvider,
        configuration: Configuration,
        provider: Callable[[str], Provider],
        processes: Callable[[], Processes],
        environ: Mapping[str, str],
    ) -> None:
        self.live, self._configuration, self._environ = live, configuration, environ
        self._provider, self._processes = provider, processes

    async def unit(self, kind: str) -> UnitState | None:
        """The unit of systemd in which the live server of this `kind` runs, or did before it was drained."""
        lease, managers = self.live.lease, self.live.managers
        if lease is not None and isinstance(lease.target, Unit):
            return await asyncio.to_thread(
                managers.systemd.show, lease.target.scope, lease.target.unit
            )
        managed = (await self.find(kind)).managed
        if managed is not None and isinstance(managed.job, UnitState) and managed.refusal is None:
            return managed.job
        named, name = self._configuration.now.live.manager
        return await asyncio.to_thread(managers.systemd.find, name) if named == "systemd" else None

    async def reload(self, unit: UnitState) -> None:
        """Have systemd read the files of its units again."""
        await asyncio.to_thread(self.live.managers.systemd.ask, unit.domain, "daemon-reload")

    async def commands(self, kind: str, path: Path) -> str | None:
        """The commands that make what was written to `path` live, one a line, for what runs or would be run.

        None where nothing serves that could read it.
        """
        found, settings = await self.find(kind), self._configuration.now.live
        managed = found.managed
        if managed is None and path != self._configuration.now.provider_config:
            return _by_hand(found, path)
        if managed is not None and isinstance(managed.job, UnitState):
            typed = command(managed.job.domain)
            return f"{typed} daemon-reload\n{typed} restart {managed.job.label}"
        folder = Path(self._environ.get("HOME") or Path.home()) / "Library" / "LaunchAgents"
        labels, named = settings.known_labels, settings.plist
        label = next(
            (label for label in labels if (folder / f"{label}.plist").exists()),
            next(iter(labels), "LABEL"),
        )
        domain, plist = domains()[0], named or folder / f"{label}.plist"
        if managed is not None:
            label, domain = managed.job.label, managed.job.domain
            plist = managed.plist or folder / f"{label}.plist"
        return (
            f"launchctl bootout {domain}/{label}\n"
            f"while launchctl print {domain}/{label} >/dev/null 2>&1; do sleep 1; done\n"
            f"launchctl bootstrap {domain} {shlex.quote(str(plist))}"
        )

    async def claim(self, run_id: str, active: Callable[[], str | None], kind: str) -> str | None:
        """Take the lock and the lease for a restart; the reason why there is nothing to restart, else None.

        `carry_out` or `live.unclaim` must follow None. Raises Busy while a run is active, RestoreOutstanding
        while another restore is owed, ProviderConflict where somebody else holds the lock.
        """
        found = await self.find(kind)
        running, owed = active(), self.live.public()
        if running is not None:
            message = (
                f"run {running} is active: it restarts the provider at its end, or wait for it"
            )
            raise Busy(message, run_id=running)
        if owed is not None:
            message = "a live provider is not back yet: autotunectl provider restore"
            raise RestoreOutstanding(message, lease=owed)
        reason = _unfit(found)
        if reason is None and found.live is not None:
            self.live.claim(run_id, found, TuneRequest(drain=True, port=found.live.port))
        return reason

    @property
    def recorded(self) -> Rollback | None:
        """How the newest change would be taken back, where something is drained."""
        return None if self.live.lease is None else self.live.lease.rollback

    async def carry_out(self) -> str | None:
        """Stop the job and bring it back: None once it holds again, else why it was not stopped.

        Raises RestoreOutstanding where it was stopped and is not back; then it is tried again and again.
        Raises ApplyRefused where it did not start with the new configuration, which was taken back.
        """
        processes = self._processes()
        try:
            reason = await self.live.drain(
                processes, TuneRequest.model_fields["drain_grace"].default, lambda: False
            )
        finally:
            restored = await self.live.restore()
            await processes.close()
        if not restored:
            done = self.live.rolled_back or "the configuration is written"
            message = f"{done}; the live provider is not back yet: autotunectl provider restore"
            raise RestoreOutstanding(message, lease=self.live.public())
        if self.live.rolled_back is not None:
            raise ApplyRefused(self.live.rolled_back, "rolled_back")
        log.info("live provider restarted", reason=reason)
        return reason

    async def find(self, kind: str) -> Found:
        return await self.live.find(self._provider(kind), 0)


def _unfit(found: Found) -> str | None:
    """Why a restart is not ours to make; None where it is."""
    if found.live is None:
        return "no live provider runs"
    if found.managed is None:
        return f"{found.live.name} was started from a terminal: stop it and start it again yourself"
    return undrainable(found)


def _by_hand(found: Found, path: Path) -> str | None:
    """What a person types to serve with what was written to `path`, beside a server in a terminal or none."""
    stop = [f"kill {process.pid}" for process in found.processes[:1]]
    if path.name != ours.SCRIPT:
        return f"{stop[0]}  # and start it again as it was started" if stop else None
    # A revert has removed it.
    return "\n".join([*stop, shlex.quote(str(path))]) if path.exists() else None
