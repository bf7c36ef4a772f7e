"""Whether a server that was started again holds: it answers, or lives for 15 s with one and the same pid.

A server may start, look at its configuration for some seconds, and refuse; launchd starts it again
and again then, and it never serves. Standard library only.
"""

from __future__ import annotations

import time
from pathlib import Path

from autotuned.core.lease import Foreground, Target, Unit
from autotuned.host.listener import LEADING_ARGUMENTS, answers, descends, listener, runs_one_of
from autotuned.host.managers import Managers
from autotuned.shared.identity import age_s, alive, started
from autotuned.shared.redaction import last_line as last_printed

POLL_S = 0.2
FIRST_S = 3.0
INTERPRETERS = ("python", "sh", "bash", "zsh", "env", "node", "-")
"""How the words begin that do not tell which program a command line runs."""


def holds(
    target: Target, port: int, managers: Managers, lives_s: float, patience_s: float
) -> bool | None:
    """True once it answers or has lived for `lives_s`, False when it has ended; None after `patience_s`.

    An answer counts of a process that has lived for 3 s: systemd starts one that ends sooner again and again.
    """
    pid, since = _process(target, managers)
    begun = time.monotonic()
    while True:
        if pid is None:
            if isinstance(target, Foreground) or not managers.of(target).look().running:
                return False
        elif not alive(pid, since):
            return False
        elif (age := age_s(pid)) >= lives_s or (
            age >= min(lives_s, FIRST_S * isinstance(target, Unit)) and _answers(port, pid)
        ):
            return alive(pid, since)
        waited = time.monotonic() - begun
        if waited >= lives_s:
            return True
        if waited >= patience_s:
            return None
        time.sleep(POLL_S)


def served_elsewhere(target: Target, port: int, managers: Managers) -> str | None:
    """Who serves already where the live provider did, by whoever's hand; None for nobody but itself."""
    pid = listener(port)
    if pid is None:
        return None
    own: tuple[int | None, ...]
    if isinstance(target, Foreground):
        own, words = (target.pid, target.new_pid), target.argv[:LEADING_ARGUMENTS]
    else:
        own = (target.pid, managers.of(target).look().pid)
        words = (target.program,) if target.program else ()
    if any(known is not None and descends(pid, known) for known in own):
        return None
    names = {Path(word).name for word in words}
    names = {name for name in names if not name.startswith(INTERPRETERS)}
    if not runs_one_of(pid, names) or not answers(port):
        return None
    return f"it runs already, started by somebody else: pid {pid} serves on port {port}"


def last_line(target: Target, managers: Managers) -> str:
    """What it has printed last, and where the rest is; secrets masked."""
    if isinstance(target, Foreground):
        return last_printed([Path(target.log)] if target.log else [])
    return managers.of(target).last_line()


def _answers(port: int, pid: int) -> bool:
    """It answers itself, and nobody else in its place."""
    if not answers(port):
        return False
    owner = listener(port)
    return owner is not None and descends(owner, pid)


def _process(target: Target, managers: Managers) -> tuple[int | None, str | None]:
    if isinstance(target, Foreground):
        return target.new_pid, target.new_started
    pid = managers.of(target).look().pid
    return pid, None if pid is None else started(pid)
