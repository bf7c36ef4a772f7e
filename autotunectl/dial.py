"""An agent on another machine, reached through the system's own ssh: `--host ssh://user@mac`.

The other end runs `autotunectl dial-stdio`, which joins its stdin and stdout to the socket there. No
port is opened, and who may connect is what ssh says. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO

HANG_UP_S = 5.0
CONNECT_TIMEOUT_S = 15

_HOST = re.compile(
    r"ssh://(?:(?P<user>[^@/\s]+)@)?(?P<name>\[[0-9A-Fa-f:.]+\]|[^@:/\s\[\]]+)(?::(?P<port>\d+))?(?P<program>/[^\s]*)?"
)


class BadHost(ValueError):
    """A `--host` that names no machine; the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Host:
    """One machine: `ssh://[user@]name[:port][/absolute/path/of/autotunectl]`."""

    text: str
    target: str
    port: str | None
    program: str

    @classmethod
    def parse(cls, text: str) -> Host:
        """Raises BadHost."""
        found = _HOST.fullmatch(text)
        name = found["name"].strip("[]") if found is not None else ""
        if found is None or name.startswith("-") or (found["user"] or "").startswith("-"):
            message = f"--host: {text!r} is not ssh://[user@]name[:port][/path/of/autotunectl]"
            raise BadHost(message)
        target = f"{found['user']}@{name}" if found["user"] else name
        program = found["program"] if (found["program"] or "/") != "/" else "autotunectl"
        return cls(text, target, found["port"], program)

    def command(self) -> list[str]:
        """The ssh command line that joins this process to the agent there."""
        port = ["-p", self.port] if self.port else []
        options = ["-T", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}", *port]
        there = shlex.join([self.program, "dial-stdio"])
        return [shutil.which("ssh") or "ssh", *options, "--", self.target, there]


class Line:
    """A running ssh whose stdin and stdout are one end of a socket pair; `socket` is the other."""

    def __init__(self, host: Host) -> None:
        """Start it; raises OSError where there is no ssh."""
        self.socket, theirs = socket.socketpair()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the line
        with theirs:
            try:
                self._process = subprocess.Popen(
                    host.command(), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._said
                )
            except BaseException:
                self.socket.close()
                self._said.close()
                raise

    def reason(self) -> str:
        """Why the line is dead: the last words of ssh, or of the program at its other end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(HANG_UP_S)
        self._said.seek(0)
        lines = self._said.read(65536).decode("utf-8", errors="replace").strip().splitlines()
        said = [line for line in lines if not line.startswith("hint:")]
        return said[-1] if said else f"ssh ended with code {self._process.poll()}"

    def close(self) -> None:
        """Hang up. Idempotent."""
        self.socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(HANG_UP_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()


def join(agent: socket.socket) -> None:
    """Carry bytes between stdin, stdout and the agent until both directions have ended, or the agent hangs up."""
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    open_ends = [source, agent.fileno()]
    while agent.fileno() in open_ends:
        ready, _, _ = select.select(open_ends, [], [])
        if source in ready:
            data = os.read(source, 1 << 16)
            if data:
                agent.sendall(data)
            else:
                open_ends.remove(source)
                agent.shutdown(socket.SHUT_WR)
        if agent.fileno() in ready:
            data = agent.recv(1 << 16)
            if not data:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(sink, view) :]
