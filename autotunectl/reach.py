"""How the agent is reached: which socket or which machines, and whether one may be started where none answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import click

from autotunectl import daemonctl
from autotunectl.client import Client, ClientError

T = TypeVar("T")
MAX_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Reach:
    """`hosts` are machines behind ssh; without any, the agent is this machine's."""

    socket: str | None
    autostart: bool
    hosts: tuple[str, ...] = ()

    def client(self) -> Client:
        """A client whose agent answers, started if need be. Raises ClientError, or UsageError for several hosts."""
        if not self.hosts:
            return daemonctl.connect(self.socket, autostart=self.autostart)
        if len(self.hosts) > 1:
            message = (
                "this command takes one --host; status, runs, check-stale and start take several"
            )
            raise click.UsageError(message)
        client = Client(host=self.hosts[0])
        client.check_protocol()
        return client

    def again(self) -> Client:
        """A client that is not connected yet, of an agent that is known to run."""
        return Client(self.socket, host=self.hosts[0] if self.hosts else None)

    def here(self) -> None:
        """Refuse a command that is about this machine where another one is named."""
        if self.hosts:
            message = "this command is about the machine on which it is typed: leave out --host"
            raise click.UsageError(message)

    def everywhere(self, ask: Callable[[Client], T]) -> list[tuple[str, T | ClientError]]:
        """Ask the agents of all hosts side by side; for each host the answer, or what went wrong."""
        from concurrent.futures import ThreadPoolExecutor

        def answer(host: str) -> tuple[str, T | ClientError]:
            try:
                with Client(host=host) as client:
                    client.check_protocol()
                    return host, ask(client)
            except ClientError as error:
                return host, error

        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            return list(pool.map(answer, self.hosts))
