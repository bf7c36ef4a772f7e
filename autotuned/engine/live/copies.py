"""The lease beyond the agent's memory: its journal read again, its second copy, and what the run says of it.

A store that fails stops no restore: it is logged, and the journal is what counts.
"""

from __future__ import annotations

import contextlib
import dataclasses

import structlog

from autotuned.core.lease import Event, Foreground, Job, Lease, Unit
from autotuned.documents.events import LiveNamed
from autotuned.engine.events import Events
from autotuned.errors import ProviderConflict, StoreError
from autotuned.host.files import Lock
from autotuned.host.find import Found
from autotuned.host.restore.journal import Journal
from autotuned.store import lease as lease_module
from autotuned.store import runs
from autotuned.store.database import Database

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
        raise ProviderConflict(message, [*found.names, f"drain-lock-held-by {holder}"])
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
    """Write the second copy."""
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
    """How events and log lines name what a lease is on."""
    target = lease.target
    if isinstance(target, Job):
        return {"target": target.name, "label": target.label, "domain": target.domain}
    if isinstance(target, Unit):
        return {"target": target.name, "unit": target.unit, "scope": target.scope}
    return {"target": target.name, "pid": target.pid, "log": target.log}
