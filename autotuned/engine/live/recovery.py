"""The first thing that a new agent does: bring back what an agent before it left drained.

Works from `run/lease.json` alone, before settings, logs or the database, so that none of them can
stand in its way; it never raises. What it cannot restore in a few seconds it hands on, lock and all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.lease import Lease
from autotuned.host import failpoint
from autotuned.host.files import Lock
from autotuned.host.managers import Managers
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Pace, Restorer

LOCK_PATIENCE_S = 12.0
"""The guardian of the agent before us may be at it: it holds the lock until it is done."""
QUICK = Pace(tries=3, verify_s=4.0, dying_s=6.0, watch_s=2.0, total_s=8.0)


@dataclass(slots=True)
class Recovered:
    """What was found and what came of it."""

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
        """A restore is still owed."""
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
