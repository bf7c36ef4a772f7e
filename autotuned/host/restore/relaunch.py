"""Starting a foreground process again exactly once, whatever is killed on the way.

The new process is made, waits, and becomes the program only after its pid stands in the journal: if
we die before that, it ends unborn; after that, the journal knows it. It belongs to nobody, has a
session of its own, and gets its environment through a pipe, never through arguments. Standard
library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from autotuned.core.lease import Foreground
from autotuned.host import failpoint
from autotuned.shared.identity import started

BIRTH_DEADLINE_S = 20.0

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


def restart(process: Foreground, remember: Callable[[int, str | None], None]) -> None:
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
