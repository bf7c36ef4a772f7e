"""TCP ports of the loopback address: free, owned by a group, held by somebody."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from autotuned.host.listener import listener


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens on a port: `pid` and `name` are None where the system does not tell."""

    port: int
    pid: int | None
    name: str | None


class Ports:
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
        return any(_listens(process, port) for process in members(group))

    def holder(self, port: int) -> Listener | None:
        """Who listens there; a foreign user's process may stay unnamed."""
        if self.is_free(port):
            return None
        pid = listener(port)
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
