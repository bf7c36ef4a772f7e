"""Break glass: `python -m autotuned.host.restore.break_glass status|restore|forget [--yes] [--json]`, from `run/lease.json` alone.

For an operator whose agent is dead and whose database may be gone: no agent, no database, no settings.
Exits 0 when nothing is owed (any more), 13 while a restore is. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from autotuned.core import lease as steps
from autotuned.core.lease import Event, Foreground, Job, Lease
from autotuned.host.managers import Managers
from autotuned.host.restore import orphans
from autotuned.host.restore.journal import Journal
from autotuned.shared import wire

if TYPE_CHECKING:
    from autotuned.documents.provider import LeaseDocument


class Answer(TypedDict):
    """Whether anything is owed (any more), in words, and the lease."""

    outstanding: bool
    message: str
    lease: LeaseDocument | None


def status(journal: Journal, environ: Mapping[str, str]) -> Answer:
    """`{outstanding, message, lease}` of what the journal says, and of what launchd says now."""
    try:
        lease = journal.read()
    except ValueError as error:
        unknown = "whether anything is owed is not known; see launchctl or systemctl"
        return _answer(None, f"{error}: {unknown}", owed=True)
    if lease is None or not lease.open:
        return _answer(lease, "nothing is owed: no live provider is drained")
    name, run = lease.target.name, lease.run_id
    message = f"OWED: run {run} has drained {name} ({lease.state})"
    if lease.reason:
        message += f": {lease.reason}"
    if not isinstance(lease.target, Foreground):
        now = Managers(environ, lease.launchctl).of(lease.target).look()
        manager = "launchd" if isinstance(lease.target, Job) else "systemd"
        message += f"; {manager} says: {now.state or now.reason or now.presence.value}"
    return _answer(lease, message)


def restore(journal: Journal, environ: Mapping[str, str]) -> Answer:
    """Bring back what is owed; the same answer, after it."""
    lease = journal.read()
    if lease is None or not lease.open:
        return _answer(lease, "nothing is owed: no live provider is drained")
    lock = journal.take_lock()
    if lock is None:
        return _answer(lease, _busy(journal))
    with lock:
        lease = journal.read() or lease
        managers = Managers(environ, lease.launchctl)
        lease = orphans.restore_without(journal, lease, managers, look_again=True)
    if lease.open:
        return _answer(lease, f"NOT RESTORED: {lease.target.name}: {lease.reason}")
    words = "; ".join(word for word in (lease.reason, lease.rolled_back) if word)
    return _answer(lease, f"restored: {lease.target.name}{f' ({words})' if words else ''}")


def forget(journal: Journal, *, yes: bool) -> Answer:
    """Drop what is owed, where `yes`; the same answer, with what a restore would do."""
    lease = journal.read()
    if lease is None or not lease.open:
        return _answer(lease, "nothing is owed: no live provider is drained")
    would = "\n".join(f"  {step}" for step in steps.owed(lease))
    if not yes:
        return _answer(lease, f"a restore would:\n{would}\nto drop it all the same: --yes")
    lock = journal.take_lock()
    if lock is None:
        return _answer(lease, _busy(journal))
    with lock:
        lease = journal.read() or lease
        if lease.open:
            lease = journal.advance(lease, Event.FORGOTTEN, reason="forgotten by the operator")
    return _answer(lease, f"forgotten: {lease.target.name}; a restore would have done:\n{would}")


def _busy(journal: Journal) -> str:
    return f"somebody is at it: held by {journal.holder()} ({journal.lock_path}); try again in a minute"


def _answer(lease: Lease | None, message: str, *, owed: bool | None = None) -> Answer:
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
        elif "forget" in words:
            answer = forget(journal, yes="--yes" in words)
        else:
            answer = status(journal, environ)
    except (ValueError, OSError) as error:
        answer = _answer(None, f"{error}: nothing could be restored from it", owed=True)
    print(json.dumps(answer, indent=2) if "--json" in words else answer["message"])  # noqa: T201 - a program
    return wire.EXIT_RESTORE_OUTSTANDING if answer["outstanding"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
