"""Break glass: `python -m autotuned.host.restore.break_glass status|restore [--json]`, from `run/lease.json` alone.

For an operator whose agent is dead and whose database may be gone: no agent, no database, no settings.
Exits 0 when nothing is owed (any more), 13 while a restore is. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuned.core import lease as steps
from autotuned.core.lease import Job, Lease
from autotuned.host.managers.launchd import Launchd
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Restorer
from autotuned.shared import wire


def status(journal: Journal, launchd: Launchd) -> dict[str, Any]:
    """`{outstanding, message, lease}` of what the journal says, and of what launchd says now."""
    try:
        lease = journal.read()
    except ValueError as error:
        return _answer(
            None, f"{error}: whether anything is owed is not known; see launchctl", owed=True
        )
    if lease is None or not lease.open:
        return _answer(lease, "nothing is owed: no live provider is drained")
    name, run = lease.target.name, lease.run_id
    message = f"OWED: run {run} has drained {name} ({lease.state})"
    if lease.reason:
        message += f": {lease.reason}"
    if isinstance(lease.target, Job):
        now = launchd.look(lease.target.domain, lease.target.label)
        message += f"; launchd says: {now.state or now.reason or now.presence.value}"
    return _answer(lease, message)


def restore(journal: Journal, environ: Mapping[str, str]) -> dict[str, Any]:
    """Bring back what is owed; the same answer, after it."""
    lease = journal.read()
    if lease is None or not lease.open:
        return _answer(lease, "nothing is owed: no live provider is drained")
    lock = journal.take_lock()
    if lock is None:
        message = f"somebody is at it: held by {journal.holder()} ({journal.lock_path}); try again in a minute"
        return _answer(lease, message)
    try:
        lease = journal.read() or lease
        restorer = Restorer(journal, Launchd(environ, lease.launchctl))
        lease = restorer.release(restorer.restore(lease))
    finally:
        lock.release()
    if lease.open:
        return _answer(lease, f"NOT RESTORED: {lease.target.name}: {lease.reason}")
    said = f" ({lease.reason})" if lease.reason else ""
    return _answer(lease, f"restored: {lease.target.name}{said}")


def _answer(lease: Lease | None, message: str, *, owed: bool | None = None) -> dict[str, Any]:
    outstanding = lease is not None and lease.open if owed is None else owed
    return {
        "outstanding": outstanding,
        "message": message,
        "lease": None if lease is None else steps.public(lease),
    }


def main(words: list[str], environ: Mapping[str, str]) -> int:
    """Carry out the command; its exit code."""
    journal = Journal(Path(wire.config_folder(environ)) / "run", by="operator")
    try:
        if "restore" in words:
            answer = restore(journal, environ)
        else:
            lease = None
            with contextlib.suppress(ValueError):  # told by `status`
                lease = journal.read()
            answer = status(journal, Launchd(environ, lease.launchctl if lease else None))
    except (ValueError, OSError) as error:
        answer = _answer(None, f"{error}: nothing could be restored from it", owed=True)
    print(json.dumps(answer, indent=2) if "--json" in words else answer["message"])  # noqa: T201 - a program
    return wire.EXIT_RESTORE_OUTSTANDING if answer["outstanding"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
