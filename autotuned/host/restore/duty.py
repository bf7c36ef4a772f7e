"""The guardian's duty after the agent's death: restore, again and again, until nothing is owed.

The lock came with the arming and is held until the restore is done or has failed for now; between two
tries it is free, so that a new agent or the operator may take over. Standard library only.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from autotuned.core.lease import Lease
from autotuned.host.files import Lock
from autotuned.host.managers.launchd import Launchd
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Restorer

AGAIN_FIRST_S, AGAIN_LONGEST_S = 10.0, 600.0
LOOK_S = 2.0
"""How often the journal is looked at between two tries: whoever else restores ends the duty."""


def duty(folder: str, lock: int, environ: Mapping[str, str]) -> Callable[[], None]:
    """The duty, ready to be done: `folder` holds the journal, `lock` is the descriptor of the held lock."""
    journal = Journal(Path(folder), by="guardian")
    held = Lock(journal.lock_path, lock)
    armed = _read(journal)
    return lambda: _bring_back(journal, held, dict(environ), armed)


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
            restorer = Restorer(journal, Launchd(environ, lease.launchctl))
            lease = restorer.release(restorer.restore(lease))
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
