"""The guardian's duty after the agent's death: restore, again and again, until nothing is owed.

The lock came with the arming and is held until the restore is done or has failed for now; between two
tries it is free, so that a new agent or the operator may take over. Standard library only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from autotuned.core.lease import Lease
from autotuned.host.files import Lock
from autotuned.host.managers import Managers
from autotuned.host.restore import orphans
from autotuned.host.restore.journal import Journal

AGAIN_FIRST_S, AGAIN_LONGEST_S = 10.0, 600.0
LOOK_S = 2.0
"""How often the journal is looked at between two tries: whoever else restores ends the duty."""


class RestoreDuty:
    """The guardian's duty: `folder` holds the journal, `lock` is the descriptor of the held lock."""

    def __init__(self, folder: str, lock: int, environ: Mapping[str, str]) -> None:
        self._journal = Journal(Path(folder), by="guardian")
        self._lock = Lock(self._journal.lock_path, lock)
        self._environ = dict(environ)
        self._armed = _read(self._journal)

    def candidate(self, pid: int) -> None:
        """Write down which candidate lives, for whoever finds it without us. Raises OSError."""
        orphans.note(self._journal.path.parent, pid)

    def fulfil(self) -> None:
        """Restore, again and again, until nothing is owed."""
        _bring_back(self._journal, self._lock, self._environ, self._armed)


def _bring_back(
    journal: Journal, lock: Lock, environ: Mapping[str, str], armed: Lease | None
) -> None:
    delay = AGAIN_FIRST_S
    lease = _read(journal) or (armed if journal.path.exists() else None)
    if lease is not None and lease.open and not lock.retake():
        taken = _our_turn(journal, delay)
        if taken is None:
            return
        lock, lease = taken, _read(journal) or lease
    while lease is not None and lease.open:
        with contextlib.suppress(Exception):  # whatever it is: it is tried again
            lease = orphans.restore_without(journal, lease, Managers(environ, lease.launchctl))
        lock.release()
        if not lease.open:
            return
        again = _our_turn(journal, delay)
        if again is None:
            return
        lock, delay = again, min(2 * delay, AGAIN_LONGEST_S)
        lease = _read(journal) or lease


def _our_turn(journal: Journal, delay: float) -> Lock | None:
    """The lock, once `delay` is over and nobody else has it; None when nothing is owed any more."""
    due = time.monotonic() + delay
    while True:
        time.sleep(LOOK_S)
        if not journal.path.exists():
            return None
        lease = _read(journal)
        if lease is not None and not lease.open:
            return None
        if time.monotonic() >= due:
            lock = journal.take_lock()
            if lock is not None:
                return lock


def _read(journal: Journal) -> Lease | None:
    with contextlib.suppress(ValueError):
        return journal.read()
    return None
