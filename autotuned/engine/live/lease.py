"""The lease beyond the agent's memory: its journal read again, its second copy, and what an agent before us left.

A store that fails stops no restore: it is logged, and the journal is what counts. `recover` is the first
thing that a new agent does: it works from `run/lease.json` alone, before settings, logs or the database, so
that none of them can stand in its way, and never raises. What it cannot restore in a few seconds it hands on,
lock and all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from autotuned.core.lease import Event, Foreground, Job, Lease, Unit
from autotuned.documents.events import LiveNamed
from autotuned.engine.events import Events
from autotuned.errors import ProviderConflict, StoreError
from autotuned.host import failpoint
from autotuned.host.files import Lock
from autotuned.host.find import Found
from autotuned.host.managers import Managers
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Pace, Restorer
from autotuned.store import lease as lease_module
from autotuned.store import runs
from autotuned.store.database import Database

LOCK_PATIENCE_S = 12.0
"""The guardian of the agent before us may be at it: it holds the lock until it is done."""
QUICK = Pace(tries=3, verify_s=4.0, dying_s=6.0, watch_s=2.0, total_s=8.0)

log = structlog.get_logger(__name__)


def reread(journal: Journal, lease: Lease) -> Lease:
    """The journal knows better, if it speaks of the same lease: guardian or operator may have acted."""
    try:
        found = journal.read()
    except ValueError:
        return lease
    return found if found is not None and found.lease_id == lease.lease_id else lease


def locked(journal: Journal, found: Found) -> Lock:
    """The lock for a drain of what was found. Raises ProviderConflict naming who holds it."""
    lock = journal.take_lock()
    if lock is None:
        holder = journal.holder()
        message = (
            "the live provider is being drained or restored by somebody else: "
            f"held by {holder} ({journal.lock_path})"
        )
        names = [*found.names, f"drain-lock-held-by {holder}"]
        raise ProviderConflict(message, names, reason="held")
    return lock


def forgotten(journal: Journal, lease: Lease) -> Lease:
    """The lease as the journal has it, dropped by the operator where it is still open."""
    lease = reread(journal, lease)
    if lease.open:
        lease = journal.advance(lease, Event.FORGOTTEN, reason="forgotten by the operator")
    return lease


async def stored(database: Database) -> Lease | None:
    """The second copy; it holds no environment."""
    try:
        return await database.ask(lease_module.newest)
    except (StoreError, ValueError):
        return None


async def store(database: Database, lease: Lease | None) -> None:
    if lease is not None:
        try:
            await database.ask(lease_module.write, lease)
        except StoreError as error:
            log.error("the lease cannot be kept in the store", reason=error.message)


async def take_back(database: Database, events: Events, lease: Lease) -> None:
    """What was taken back for this lease is not applied any more. Idempotent."""
    if lease.rolled_back is None:
        return
    log.error("apply rolled back", run_id=lease.run_id, reason=lease.rolled_back)
    events.publish({"type": "log", "level": "warning", "message": lease.rolled_back}, lease.run_id)
    try:
        await database.ask(runs.take_back, lease.run_id, lease.rolled_back)
    except StoreError as error:
        log.error("the roll-back cannot be kept in the store", reason=error.message)


def serves_again(journal: Journal, lease: Lease, target: Foreground) -> Lease:
    """A server that was stopped for good serves again: its command line has no use any more.

    Not on a thread: no claim of this agent may fall between lock and release.
    """
    lease = dataclasses.replace(lease, target=dataclasses.replace(target, command=None))
    lock = journal.take_lock()
    if lock is None:
        return lease  # it is told once more by the next agent
    with contextlib.suppress(OSError, ValueError):
        written = journal.read()
        if written is not None and written.lease_id == lease.lease_id:
            journal.write(lease)
    lock.release()
    return lease


def named(lease: Lease) -> LiveNamed:
    target = lease.target
    if isinstance(target, Job):
        return {"target": target.name, "label": target.label, "domain": target.domain}
    if isinstance(target, Unit):
        return {"target": target.name, "unit": target.unit, "scope": target.scope}
    return {"target": target.name, "pid": target.pid, "log": target.log}


@dataclass(slots=True)
class Recovered:
    before: Lease | None = None
    """The open lease that was found; None when nothing was owed."""
    lease: Lease | None = None
    """The lease as it is now."""
    lock: Lock | None = None
    """Still held where the restore is still owed."""
    trouble: str | None = None
    """Why the journal could not be read or the restore not be tried."""

    @property
    def outstanding(self) -> bool:
        return self.lease is not None and self.lease.open


def recover(folder: Path, environ: Mapping[str, str], pace: Pace = QUICK) -> Recovered:
    """Restore what the journal in `folder` owes, within a few seconds. Never raises."""
    found = Recovered()
    journal = Journal(folder)
    try:
        found.lease = journal.read()
        if found.lease is None or not found.lease.open:
            return found
        found.before = found.lease
        found.lock, found.lease = _claim(journal, found.lease)
        if found.lock is None or not found.lease.open:
            return found
        failpoint.reach("recover.begun")
        _try(found, journal, environ, pace)
    except Exception as error:  # noqa: BLE001 - an agent that cannot start restores nothing at all
        found.trouble = f"{type(error).__name__}: {error}"
    finally:
        if not found.outstanding and found.lock is not None:
            found.lock.release()
            found.lock = None
    return found


def insist(found: Recovered, folder: Path, environ: Mapping[str, str]) -> None:
    """Try with the whole patience: for an agent that must end now and cannot go on trying. Never raises."""
    if found.outstanding and found.lock is not None:
        try:
            journal = Journal(folder)
            found.lease = journal.read() or found.lease
            if found.lease is not None and found.lease.open:
                _try(found, journal, environ, Pace())
        except Exception as error:  # noqa: BLE001 - the agent ends with its own error
            found.trouble = f"{type(error).__name__}: {error}"


def _try(found: Recovered, journal: Journal, environ: Mapping[str, str], pace: Pace) -> None:
    assert found.lease is not None  # noqa: S101 - callers look
    restorer = Restorer(journal, Managers(environ, found.lease.launchctl), pace)
    found.lease = restorer.release(restorer.restore(found.lease))
    if not found.lease.open:
        failpoint.reach("recover.done")


def _claim(journal: Journal, lease: Lease) -> tuple[Lock | None, Lease]:
    """The lock, and the lease as it is then; no lock where somebody else keeps it."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        lock = journal.take_lock()
        now = journal.read() or lease
        if lock is not None or not now.open or time.monotonic() >= deadline:
            return lock, now
        time.sleep(0.05)
