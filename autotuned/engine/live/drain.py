"""The operator's live provider: found, drained for a run, and brought back whatever happens.

Every effect is in the journal before it is made, and the guardian knows of it, so that somebody is
left to undo it. A restore that fails is tried again for as long as the agent lives. Must not know how
a provider is measured, nor the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import structlog
from typing_extensions import Unpack

from autotuned import providers
from autotuned.core import lease as steps
from autotuned.core.lease import Event, Lease, Rollback, State
from autotuned.core.request import TuneRequest
from autotuned.documents.events import LiveKind, LiveOutcome, LiveProviderEvent
from autotuned.documents.provider import LeaseDocument, LeftStoppedDocument
from autotuned.engine.events import Events
from autotuned.engine.live import lease as copies
from autotuned.engine.live.lease import Recovered
from autotuned.engine.live.preflight import update_over
from autotuned.engine.live.status import Returned, Sighting, returned
from autotuned.errors import Busy, StoreError
from autotuned.host import failpoint
from autotuned.host.children.process import Processes
from autotuned.host.files import Lock
from autotuned.host.find import Finder, Found
from autotuned.host.managers import Managers
from autotuned.host.managers.stopping import Stopper
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.lease import contract
from autotuned.host.restore.restorer import Restorer
from autotuned.providers.server import Provider
from autotuned.settings import Settings
from autotuned.store import lease as lease_module
from autotuned.store.database import Database

RUN_WAITS_S = 75.0
"""A run's end is written down after this long, though a launchctl that hangs holds up the restore. Enough to see
a provider end during its start-up, take the new configuration back, and see it live."""
RETRY_FIRST_S, RETRY_LONGEST_S = 10.0, 600.0
PAID_S = 5.0
"""A start that is refused for what is owed waits so long for a look whether it still is."""
GUARDIAN_S = 1.0
"""How soon it is looked again where somebody else has the lock: a guardian is nearly done."""

log = structlog.get_logger(__name__)


class LiveProvider:
    """The live provider of this machine and the lease on it. One lease at a time."""

    def __init__(
        self,
        finder: Finder,
        settings: Settings,
        database: Database,
        events: Events,
        environ: Mapping[str, str],
    ) -> None:
        self._finder, self._ports, self._settings = finder, finder.ports, settings
        self._database, self._events, self._environ = database, events, environ
        self._journal = Journal(settings.run_folder)
        self._lease: Lease | None = None
        self._lock: Lock | None = None
        self._guard: Processes | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._trying = asyncio.Lock()
        self._first: asyncio.Task[bool] | None = None
        """A restore that a run did not wait for; the next one waits for its end."""
        self._commands = providers.commands(settings.provider, environ, settings.descriptions)
        self.sighting = Sighting(finder, lambda: finder.look(self._commands, 0))

    # --- what is there -----------------------------------------------------------------------------

    async def find(self, provider: Provider, port: int) -> Found:
        """Who is in the way of candidates on `port` now."""
        self._commands = provider.commands
        return await self._finder.find(self._commands, port)

    async def came_back(self) -> Returned | None:
        """Who runs now though it was drained; None when nobody does, or nothing is drained."""
        lease = self._lease
        if lease is None or lease.state is not State.DRAINED:
            return None
        return await asyncio.to_thread(returned, lease, self._finder, self._commands)

    @property
    def managers(self) -> Managers:
        return self._finder.managers

    @property
    def lease(self) -> Lease | None:
        """The lease in force; None while nothing is owed."""
        return self._lease if self._lease is not None and self._lease.open else None

    def public(self) -> LeaseDocument | None:
        lease = self.lease
        if lease is not None and self._trying.locked():
            lease = copies.reread(self._journal, lease)  # each failed try is written down
        return None if lease is None else steps.public(lease)

    def stopped_by(self, run_id: str) -> str | None:
        """The command line of the server that this run has stopped for good; None where it has not."""
        lease = self._lease
        target = None if lease is None or lease.run_id != run_id else lease.left_stopped
        return None if target is None else target.command

    async def left_stopped(self) -> LeftStoppedDocument | None:
        """The server that a run has stopped for good, until one is seen to serve again."""
        lease = self._lease
        target = None if lease is None else lease.left_stopped
        if lease is None or target is None:
            return None
        seen = await self.sighting.document(None)
        if (seen is not None and seen["running"]) or not self._ports.is_free(lease.port):
            if self._lease is lease:
                self._lease = copies.serves_again(self._journal, lease, target)
            return None
        return {"run_id": lease.run_id, "name": target.name, "command": target.command or ""}

    @property
    def rolled_back(self) -> str | None:
        """That what was written for the newest lease was taken back, and why."""
        return None if self._lease is None else self._lease.rolled_back

    # --- draining ----------------------------------------------------------------------------------

    def claim(self, run_id: str, found: Found, request: TuneRequest) -> None:
        """Take the lock for a drain of what was found. Raises ProviderConflict naming who holds it."""
        lock = copies.locked(self._journal, found)
        try:
            failpoint.reach("drain.locked")
            self._lease = contract(run_id, found, request, self._finder.managers, self._settings)
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def unclaim(self) -> None:
        """Let a claim go of which nothing has been written yet. Idempotent."""
        if self._lock is not None:
            self._lock.release()
        self._lock = self._lease = None

    async def drain(
        self, processes: Processes, grace_s: float, cancelled: Callable[[], bool]
    ) -> str | None:
        """Stop what was claimed: None once it and its ports are gone, else why the run cannot go on.

        Nothing is done before the intent is on the disk and the guardian knows of it. In every case
        `restore` must follow.
        """
        assert self._lease is not None  # noqa: S101 - claimed
        assert self._lock is not None  # noqa: S101
        commands = providers.commands_of("macprovider", self._settings.provider)
        reason = await update_over(self._lease, commands, self._environ, grace_s, cancelled)
        if reason is not None:
            return reason
        self._tell("drain.begun")
        try:
            await asyncio.to_thread(self._journal.write, self._lease)
            await self._database.ask(lease_module.write, self._lease)
            failpoint.reach("drain.intent")
            self._guard = processes
            await processes.arm(self._duty(), self._lock.descriptor)
            failpoint.reach("drain.armed")
        except (OSError, StoreError) as error:
            return f"the drain cannot be made safe, so nothing was stopped: {error}"
        return await self._stop(grace_s, cancelled)

    async def drain_again(self, grace_s: float, cancelled: Callable[[], bool]) -> str | None:
        """Stop what somebody else brought back meanwhile; as `drain`. Another provider is left alone."""
        found = await self.came_back()
        if found is None or self._lease is None:
            return None  # gone by itself
        if found.target is None:
            return f"{found.name} is not the live provider that was drained, so it is left alone"
        lease = dataclasses.replace(self._lease, target=found.target)
        try:
            self._lease = await asyncio.to_thread(self._journal.advance, lease, Event.REAPPEARED)
        except OSError as error:
            return f"the drain cannot be written down: {error}"
        self._tell("drain.begun", again=True)
        return await self._stop(grace_s, cancelled)

    def record(self, rollback: Rollback | None) -> None:
        """Keep how to take back what is about to be written, where something is drained; None forgets it.

        Blocks. Raises OSError: nothing must be written then.
        """
        if self.lease is None:
            return
        lease = dataclasses.replace(self.lease, rollback=rollback)
        if lease.state is not State.INTENT:  # a mere claim is written by the drain
            self._journal.write(lease)
        self._lease = lease
        if rollback is not None:
            failpoint.reach("apply.recorded")

    async def _stop(self, grace_s: float, cancelled: Callable[[], bool]) -> str | None:
        assert self._lease is not None  # noqa: S101 - claimed
        lease = self._lease
        stopper = Stopper(self._journal, self._finder.managers, self._ports)
        try:
            lease, reason = await asyncio.to_thread(stopper.stop, lease, grace_s, cancelled)
        except OSError as error:
            lease = await asyncio.to_thread(copies.reread, self._journal, lease)
            reason = f"the drain cannot be written down: {error}"
        self._lease = lease
        await copies.store(self._database, self._lease)
        if reason is None:
            self._tell("drain.done")
            log.info("live provider drained", target=lease.target.name)
        return reason

    # --- restoring ---------------------------------------------------------------------------------

    async def restore(self) -> bool:
        """Bring it back; False when it is still owed, and then it is tried again in the background.

        Idempotent, and no harm where nothing is drained.
        """
        if self.lease is None:
            return True
        first = asyncio.create_task(self._try(), name="restore")
        await asyncio.wait({first}, timeout=RUN_WAITS_S)
        if first.done() and first.result():
            return True
        self._first = first
        if self._retrying is None or self._retrying.done():
            self._retrying = asyncio.create_task(self._retry(), name="restore")
        return False

    async def paid_meanwhile(self) -> None:
        """Where something serves on the port of what is owed, see whether somebody else has brought it back."""
        lease = self.lease
        if lease is None or self._retrying is None or self._ports.is_free(lease.port):
            return
        if self._first is None or self._first.done():
            self._first = asyncio.create_task(self._try(), name="restore")
        await asyncio.wait({self._first}, timeout=PAID_S)

    async def restore_now(self) -> bool:
        """Do not wait for the next try in the background; True when nothing is owed any more."""
        if self.lease is None:
            return True
        if self._retrying is None or self._retrying.done():
            return False  # a run holds it: it is brought back at its end
        done = await self._try()
        self._again.set()
        return done

    async def take_over(self, recovered: Recovered, guard: Processes) -> None:
        """Tell what was restored at the start, and go on owing what was not; `guard` owes it with us.

        A lease that the guardian closed after its agent's death is told too, once: the store still has it open.
        """
        kept = await copies.stored(self._database)
        lease = self._lease = recovered.lease
        if recovered.trouble is not None:
            log.error("the lease cannot be read or restored", reason=recovered.trouble)
        if lease is None and kept is not None and kept.open:
            lease = self._lease = kept  # the second copy; it holds no environment
        if lease is None:
            return
        if lease.open:
            self._lock = recovered.lock
            if self._lock is not None:
                with contextlib.suppress(OSError):  # then we owe it alone
                    await guard.arm(self._duty(), self._lock.descriptor)
                    self._guard = guard
            if lease.state is State.RESTORED:
                log.info("live provider restored, and watched", **copies.named(lease))
            else:
                log.error(
                    "live provider not restored yet", **copies.named(lease), reason=lease.reason
                )
                self._tell("restore.done", restored=False, reason=lease.reason)
            self._retrying = asyncio.create_task(self._retry(), name="restore")
        elif recovered.before is not None or (kept is not None and kept.open):
            log.warning("live provider restored after a crash", **copies.named(lease), by=lease.by)
            self._tell("restore.done", restored=True, reason=lease.reason, by=lease.by)
        else:
            return
        await copies.take_back(self._database, self._events, lease)
        await copies.store(self._database, self._lease)

    async def close(self) -> None:
        """Stop trying. What is still owed stays in the journal, and with the guardian, where one is armed."""
        if self._retrying is not None:
            self._retrying.cancel()
            await asyncio.gather(self._retrying, return_exceptions=True)
        await self.sighting.close()
        if self._guard is not None:
            await self._guard.close()

    async def _retry(self) -> None:
        delay = RETRY_FIRST_S if self._lock is not None else GUARDIAN_S
        if self.lease is not None and self.lease.state is State.RESTORED:
            delay = 0.0
        while self.lease is not None:
            self._again.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._again.wait()
            delay = min(2 * delay or RETRY_FIRST_S, RETRY_LONGEST_S)
            await self._try()

    async def _try(self) -> bool:
        """One whole restore; True when nothing is owed after it. Never raises: whatever it is, it is tried again."""
        try:
            return await self._once()
        except Exception:
            log.exception("a restore failed", owed=self.public())
            return False

    async def _once(self) -> bool:
        async with self._trying:
            lease = self.lease
            if lease is None:
                return True
            self._lock = self._lock or self._journal.take_lock()
            lease = self._lease = await asyncio.to_thread(copies.reread, self._journal, lease)
            if self._lock is None and lease.open:
                return False  # somebody else is at it
            self._tell("restore.begun")
            managers = Managers(self._environ, lease.launchctl)
            restorer = Restorer(self._journal, managers)
            lease = self._lease = await asyncio.to_thread(restorer.restore, lease)
            lease = self._lease = await asyncio.to_thread(restorer.release, lease)
            await copies.take_back(self._database, self._events, lease)
            if lease.open:
                self._tell("restore.done", restored=False, reason=lease.reason)
                log.error("live provider not restored", **copies.named(lease), reason=lease.reason)
                await copies.store(self._database, self._lease)
                return False
            return await self._done(lease)

    async def _done(self, lease: Lease, *, restored: bool = True) -> bool:
        """Nothing is owed any more: let lock and guardian go, and say so."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        failpoint.reach("restore.unlocked")
        self.sighting.forget()
        if self._guard is not None:
            await self._guard.disarm()
            self._guard = None
        await copies.store(self._database, self._lease)
        self._tell("restore.done", restored=restored, reason=lease.reason)
        log.info("live provider restored" if restored else "lease forgotten", **copies.named(lease))
        return True

    async def forget(self, *, yes: bool) -> tuple[bool, list[str]]:
        """Drop the lease in force, where `yes`; whether that was done, and what is owed.

        Raises Busy while a run holds it.
        """
        lease = self.lease
        if lease is None:
            return False, []
        if self._retrying is None or self._retrying.done():
            message = f"run {lease.run_id} holds the live provider and restores it at its end: autotunectl cancel"
            raise Busy(message, run_id=lease.run_id)
        owed = steps.owed(lease)
        if not yes:
            return False, owed
        async with self._trying:
            self._lock = self._lock or self._journal.take_lock()
            if self._lock is None:
                message = (
                    f"somebody is at it: held by {self._journal.holder()}; try again in a minute"
                )
                raise Busy(message, run_id=lease.run_id)
            lease = self._lease = await asyncio.to_thread(copies.forgotten, self._journal, lease)
            await self._done(lease, restored=False)
        self._again.set()
        return True, owed

    def _duty(self) -> dict[str, object]:
        return {"folder": str(self._settings.run_folder), "environ": dict(self._environ)}

    def _tell(self, kind: LiveKind, **outcome: Unpack[LiveOutcome]) -> None:
        if self._lease is not None:
            event: LiveProviderEvent = {"type": kind, **copies.named(self._lease), **outcome}
            self._events.publish(event, self._lease.run_id)
