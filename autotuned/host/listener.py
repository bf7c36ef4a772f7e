"""Who listens on a port of the loopback address, and whether it answers: for agent, guardian and break glass.

Standard library only; where the system does not tell, nothing is known, and nobody may guess.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from autotuned.shared import tools
from autotuned.shared.identity import parent

ANSWER_S = 1.0
LSOF_DEADLINE_S = 10.0
LEADING_ARGUMENTS = 3
"""An interpreter and its option may stand before the program."""
_LISTEN = "0A"


def answers(port: int) -> bool:
    """A server of HTTP answers there, whatever its status."""
    try:
        with socket.create_connection(("127.0.0.1", port), ANSWER_S) as connection:
            connection.sendall(b"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def listener(port: int) -> int | None:
    """The process of ours that listens on `port`; None for nobody, or where that cannot be seen."""
    if sys.platform == "darwin":
        words = ("-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp")
        fields = tools.ask("lsof", *words, timeout_s=LSOF_DEADLINE_S).split()
        return next((int(pid[1:]) for pid in fields if pid[:1] == "p" and pid[1:].isdigit()), None)
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for entry in Path("/proc").glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            if any(str(opened.readlink()) in sockets for opened in (entry / "fd").iterdir()):
                return int(entry.name)
    return None


def arguments(pid: int) -> list[str]:
    """The command line of a process; empty where it cannot be read."""
    if sys.platform == "darwin":
        return tools.ask("ps", "-ww", "-o", "command=", "-p", str(pid)).split()
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        return [os.fsdecode(word) for word in line.split(b"\0")[:-1]]
    return []


def runs_one_of(pid: int, names: Collection[str]) -> bool:
    """One of its leading arguments is a program with one of these basenames."""
    return any(Path(word).name in names for word in arguments(pid)[:LEADING_ARGUMENTS])


def descends(pid: int, ancestor: int) -> bool:
    """`pid` is that process, or was started by it, at any remove."""
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        if pid == ancestor:
            return True
        seen.add(pid)
        pid = parent(pid)
    return False


def _inodes(port: int) -> Iterator[str]:
    """The sockets that listen on `port`, by the kernel's tables."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text("ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
