"""`run/lease.json`: the one file from which a live provider can always be brought back.

Written whole and on the disk before the step that it tells of; 0600, for it can hold the environment
of a process. Whoever changes it holds `run/drain.lock`. Standard library only: agent, guardian and
break glass share it.
"""

from __future__ import annotations

import json
from pathlib import Path

from autotuned.core import lease as steps
from autotuned.core.lease import Lease
from autotuned.host.clock import utc_now
from autotuned.host.files import Lock, lock_holder, take_lock, write_atomic

LEASE, LOCK = "lease.json", "drain.lock"


class Journal:
    """The lease of one home, in its `run` folder."""

    def __init__(self, folder: Path, by: str = "agent") -> None:
        self.path, self.lock_path = folder / LEASE, folder / LOCK
        self._by = by

    def read(self) -> Lease | None:
        """The newest lease, open or released; None when there never was one. Raises ValueError for a damaged file."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"{self.path}: cannot be read: {error.strerror}"
            raise ValueError(message) from error
        try:
            return steps.parse(json.loads(text))
        except ValueError as error:
            message = f"{self.path}: {error}"
            raise ValueError(message) from error

    def write(self, lease: Lease) -> None:
        """Replace the lease; on the disk when this returns. Raises OSError."""
        text = json.dumps(steps.document(lease), indent=1)
        write_atomic(self.path, text.encode(), 0o600)

    def advance(self, lease: Lease, event: steps.Event, **changes: object) -> Lease:
        """Take one step and write it; the lease after it. Raises OSError, or UnlistedStep."""
        after = steps.advance(lease, event, utc_now(), by=self._by, **changes)
        self.write(after)
        return after

    def take_lock(self) -> Lock | None:
        """The lock under which a live provider is drained and restored; None when somebody else has it."""
        return take_lock(self.lock_path)

    def holder(self) -> str:
        """`pid N since T` of whoever has the lock."""
        return lock_holder(self.lock_path)
