"""Candidates that have outlived agent and guardian: ended before a live provider is brought back.

They hold its port and its memory. They are known by the mark in their environment, and by the
record of the newest one, for a system that does not show environments. After the agent's death the
guardian's duty is to restore, again and again, until nothing is owed: the lock came with the arming and is
held until the restore is done or has failed for now; between two tries it is free, so that a new agent or
the operator may take over. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from autotuned.core.lease import Event, Lease, State
from autotuned.host.children.marked import marked
from autotuned.host.files import Lock
from autotuned.host.managers import Managers
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Restorer
from autotuned.shared.identity import alive, boot_id, started

MARKER = "AUTOTUNED_CANDIDATE"
"""The environment variable by which a candidate of a home is known; its value is the home's folder."""
RECORD = "candidate.json"
GRACE_S, KILL_S, POLL_S = 1.5, 5.0, 0.05
AGAIN_S = 3.0
"""A provider beside which an orphan was ended is looked at once more after this."""


def note(folder: Path, pid: int) -> None:
    """Write down, in the `run` folder, which candidate lives now. Raises OSError."""
    record = {"pid": pid, "started": started(pid), "boot_id": boot_id()}
    part = folder / f".{RECORD}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(record, file)
    part.replace(folder / RECORD)


def stop(folder: Path) -> tuple[int, list[int]]:
    """End all candidates of the home whose `run` folder this is: how many there were, and those that do not end."""
    ended: set[int] = set()
    begun = time.monotonic()
    while left := _living(folder):
        waited = time.monotonic() - begun
        if waited >= GRACE_S + KILL_S:
            return len(ended), sorted(left)
        for pid in left - ended if waited < GRACE_S else left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM if waited < GRACE_S else signal.SIGKILL)
        ended |= left
        time.sleep(POLL_S)
    return len(ended), []


def restore_without(
    journal: Journal, lease: Lease, managers: Managers, *, look_again: bool = False
) -> Lease:
    """One whole restore, never beside an orphan; with `look_again` it is looked at once more after 3 s."""
    ended, left = stop(journal.path.parent)
    if left and lease.state is not State.LIVING:
        if lease.state is not State.ROLLING_BACK:
            lease = journal.advance(lease, Event.RESTORE, attempts=lease.attempts + 1)
        reason = f"a candidate of a killed agent does not end: pid {left[0]}; end it with kill -9"
        return journal.advance(lease, Event.REFUSED, reason=reason)
    restorer = Restorer(journal, managers)
    lease = restorer.restore(lease)
    if lease.state is State.LIVING and (ended or look_again):
        time.sleep(AGAIN_S)
        lease = restorer.look_again(lease)
    return restorer.release(lease)


def _living(folder: Path) -> set[int]:
    found = set(marked(f"{MARKER}={folder.parent}"))
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if (
            record["boot_id"] == boot_id()
            and record["started"]
            and alive(record["pid"], record["started"])
        ):
            found.add(record["pid"])
    return found


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
        note(self._journal.path.parent, pid)

    def fulfil(self) -> None:
        """Restore, again and again, until nothing is owed."""
        journal, lock, delay = self._journal, self._lock, AGAIN_FIRST_S
        lease = _read(journal) or (self._armed if journal.path.exists() else None)
        if lease is not None and lease.open and not lock.retake():
            taken = _our_turn(journal, delay)
            if taken is None:
                return
            lock, lease = taken, _read(journal) or lease
        while lease is not None and lease.open:
            with contextlib.suppress(Exception):  # whatever it is: it is tried again
                lease = restore_without(journal, lease, Managers(self._environ, lease.launchctl))
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
