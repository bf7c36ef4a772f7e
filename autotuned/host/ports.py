"""TCP ports of the loopback address: free, owned by a group, held by somebody."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator

import psutil

from autotuned.host.interface import Listener
from autotuned.shared import tools

LSOF_DEADLINE_S = 10.0


class LoopbackPorts:
    """The real ports of this machine."""

    def is_free(self, port: int) -> bool:
        """Nobody answers there, and it can be bound. A connection in TIME_WAIT does not count."""
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def listens(self, group: int, port: int) -> bool:
        """Some process of process group `group` listens on `port`."""
        return any(_listens(process, port) for process in members(group))

    def holder(self, port: int) -> Listener | None:
        """Who listens there; a foreign user's process may stay unnamed."""
        if self.is_free(port):
            return None
        pid = _lsof(port) if sys.platform == "darwin" else _from_tables(port)
        name = None
        if pid is not None:
            with contextlib.suppress(psutil.Error):
                name = psutil.Process(pid).name()
        return Listener(port, pid, name)


def members(group: int) -> Iterator[psutil.Process]:
    """The live processes of a group, its leader first."""
    for pid in (group, *(pid for pid in psutil.pids() if pid != group)):
        try:
            if os.getpgid(pid) == group:
                yield psutil.Process(pid)
        except (psutil.Error, OSError):
            continue


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except (psutil.Error, OSError):
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _from_tables(port: int) -> int | None:
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    pids = [
        c.pid
        for c in connections
        if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port
    ]
    return next((pid for pid in pids if pid is not None), None)


def _lsof(port: int) -> int | None:
    words = (f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp")
    answer = tools.run(["/usr/sbin/lsof", "-nP", *words], LSOF_DEADLINE_S)
    pid = re.search(r"^p(\d{1,9})$", answer.out, re.MULTILINE | re.ASCII)
    return int(pid[1]) if pid else None
