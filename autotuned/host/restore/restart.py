"""Starting a server again, and whether it holds then. Standard library only.

A foreground process is started exactly once, whatever is killed on the way: the new one is made, waits,
and becomes the program only after its pid stands in the journal. If we die before that, it ends unborn;
after that, the journal knows it. It belongs to nobody, has a session of its own, and gets its
environment through a pipe, never through arguments.

A server may start, look at its configuration for some seconds, and refuse; launchd starts it again
and again then, and it never serves. It holds where it answers, or lives for 15 s with one and the same pid.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from autotuned.core.lease import Foreground, Target, Unit
from autotuned.host import failpoint
from autotuned.host.listener import LEADING_ARGUMENTS, answers, descends, listener, runs_one_of
from autotuned.host.managers import Managers
from autotuned.shared.identity import age_s, alive, started
from autotuned.shared.redaction import last_line as last_printed

BIRTH_DEADLINE_S = 20.0
POLL_S = 0.2
FIRST_S = 3.0
INTERPRETERS = ("python", "sh", "bash", "zsh", "env", "node", "-")
"""How the words begin that do not tell which program a command line runs."""

_UNBORN = r"""
import json, os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
os.write(1, b"%d\n" % os.getpid())
with open(0, "rb", closefd=False) as orders:
    line = orders.readline()
if not line.endswith(b"\n"):
    os._exit(0)
order = json.loads(line)
for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGPIPE", "SIGCHLD", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.umask(order["umask"])
try:
    os.chdir(order["cwd"])
except OSError as error:
    print("autotuned: its working directory is gone:", error, file=sys.stderr, flush=True)
os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
os.dup2(2, 1)
try:
    os.execvpe(order["argv"][0], order["argv"], order["environ"])
except OSError as error:
    print("autotuned: it cannot be started again:", error, file=sys.stderr, flush=True)
    os._exit(127)
"""


def start_again(process: Foreground, remember: Callable[[int, str | None], None]) -> None:
    """Start `process` again; `remember(pid, started)` writes its new identity down before it may go.

    Raises OSError, also where it could not be made at all.
    """
    log = os.open(
        process.log or os.devnull,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
    )
    try:
        unborn = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _UNBORN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )
    finally:
        os.close(log)
    assert unborn.stdin is not None  # noqa: S101 - PIPE was asked for
    assert unborn.stdout is not None  # noqa: S101
    with unborn.stdin as orders, unborn.stdout as said:
        word = said.readline()
        unborn.wait(BIRTH_DEADLINE_S)
        if not word.strip().isdigit():
            message = f"{process.name} cannot be started again: see {process.log}"
            raise OSError(message)
        pid = int(word)
        remember(pid, started(pid))
        failpoint.reach("restore.held")
        order = {
            "argv": list(process.argv),
            "environ": dict(process.environ or {}),
            "cwd": process.cwd or "/",
            "umask": process.umask,
        }
        orders.write(json.dumps(order).encode() + b"\n")


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
