"""How the agent is reached: which socket, and whether one may be started where none answers."""

from __future__ import annotations

from dataclasses import dataclass

from autotunectl import daemonctl
from autotunectl.client import Client


@dataclass(frozen=True, slots=True)
class Reach:
    """How the agent is reached."""

    socket: str | None
    autostart: bool

    def client(self) -> Client:
        """A client whose agent answers, started if need be."""
        return daemonctl.connect(self.socket, autostart=self.autostart)

    def path(self) -> str:
        """The socket's path."""
        return Client(self.socket).path
