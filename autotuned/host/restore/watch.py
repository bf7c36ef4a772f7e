"""Whether a server that was started again holds: it answers, or lives for 15 s with one and the same pid.

A server may start, look at its configuration for some seconds, and refuse; launchd starts it again
and again then, and it never serves. Standard library only.
"""

from __future__ import annotations

import plistlib
import time
from pathlib import Path

from autotuned.core.lease import Foreground, Job
from autotuned.host.listener import LEADING_ARGUMENTS, answers, descends, listener, runs_one_of
from autotuned.shared.identity import age_s, alive, started
from autotuned.shared.launchctl import Launchd
from autotuned.shared.redaction import masker

POLL_S = 0.2
TAIL_BYTES = 16 * 1024
LONGEST_LINE = 300
INTERPRETERS = ("python", "sh", "bash", "zsh", "env", "node", "-")
"""How the words begin that do not tell which program a command line runs."""


def holds(
    target: Job | Foreground, port: int, launchd: Launchd, lives_s: float, patience_s: float
) -> bool | None:
    """True once it answers or has lived for `lives_s`, False when it has ended; None after `patience_s`."""
    pid, since = _process(target, launchd)
    begun = time.monotonic()
    while True:
        if pid is None:
            if isinstance(target, Foreground) or not launchd.look(*_name(target)).running:
                return False
        elif not alive(pid, since):
            return False
        elif age_s(pid) >= lives_s or _answers(port, pid):
            return alive(pid, since)
        waited = time.monotonic() - begun
        if waited >= lives_s:
            return True
        if waited >= patience_s:
            return None
        time.sleep(POLL_S)


def served_elsewhere(target: Job | Foreground, port: int, launchd: Launchd) -> str | None:
    """Who serves already where the live provider did, by whoever's hand; None for nobody but itself."""
    pid = listener(port)
    if pid is None:
        return None
    if isinstance(target, Job):
        own = (target.pid, launchd.look(*_name(target)).pid)
        words: tuple[str, ...] = (target.program,) if target.program else ()
    else:
        own, words = (target.pid, target.new_pid), target.argv[:LEADING_ARGUMENTS]
    if any(known is not None and descends(pid, known) for known in own):
        return None
    names = {Path(word).name for word in words}
    names = {name for name in names if not name.startswith(INTERPRETERS)}
    if not runs_one_of(pid, names) or not answers(port):
        return None
    return f"it runs already, started by somebody else: pid {pid} serves on port {port}"


def last_line(target: Job | Foreground) -> str:
    """What it has printed last, and where the rest is; secrets masked."""
    logs = [Path(target.log)] if isinstance(target, Foreground) and target.log else []
    if isinstance(target, Job):
        logs = _logs(Path(target.plist))
    for log in logs:
        line = _tail(log)
        if line:
            return f"{line} (its log: {log})"
    return f"it printed nothing (its log: {logs[0]})" if logs else "its job names no log"


def _process(target: Job | Foreground, launchd: Launchd) -> tuple[int | None, str | None]:
    if isinstance(target, Foreground):
        return target.new_pid, target.new_started
    pid = launchd.look(*_name(target)).pid
    return pid, None if pid is None else started(pid)


def _name(job: Job) -> tuple[str, str]:
    return job.domain, job.label


def _answers(port: int, pid: int) -> bool:
    """It answers itself, and nobody else in its place."""
    if not answers(port):
        return False
    owner = listener(port)
    return owner is not None and descends(owner, pid)


def _logs(plist: Path) -> list[Path]:
    """The files that a job prints into, that of its errors first."""
    try:
        with plist.open("rb") as file:
            content = plistlib.load(file)
        found = [content.get(key) for key in ("StandardErrorPath", "StandardOutPath")]
    except Exception:  # noqa: BLE001 - missing or no plist: expat's errors have no common class
        return []
    return [Path(log) for log in dict.fromkeys(found) if isinstance(log, str)]


def _tail(log: Path) -> str | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    line = next((line.strip() for line in reversed(lines) if line.strip()), None)
    if line is None:
        return None
    shown = "".join(letter if letter.isprintable() else " " for letter in line)
    return masker(())(shown)[:LONGEST_LINE]
