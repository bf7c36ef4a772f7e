"""How the agent is reached: which socket or which machines, and whether one may be started where none answers.

Every command loads this, so it loads nothing that only the starting of an agent needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from autotunectl.client import Client, ClientError, Unreachable

T = TypeVar("T")
MAX_AT_ONCE = 16


class Reach:
    """`hosts` are machines behind ssh; without any, the agent is this machine's."""

    def __init__(self, socket: str | None, *, autostart: bool, hosts: tuple[str, ...] = ()) -> None:
        self.socket, self.autostart, self.hosts = socket, autostart, hosts

    def client(self) -> Client:
        """A client whose agent answers, started if need be. Raises ClientError, or UsageError for several hosts."""
        if not self.hosts:
            return connect(self.socket, autostart=self.autostart)
        if len(self.hosts) > 1:
            message = (
                "this command takes one --host; status, runs, check-stale and start take several"
            )
            raise click.UsageError(message)
        client = Client(host=self.hosts[0])
        client.check_protocol()
        return client

    def call(self, method: str, **params: object) -> Any:
        """One answer of the agent, started if need be. Raises ClientError."""
        with self.client() as client:
            return client.request(method, params)

    def again(self) -> Client:
        """A client that is not connected yet, of an agent that is known to run."""
        if self.hosts:
            return Client(host=self.hosts[0])
        return Client(self.socket, revive=self._revive if self.autostart else None)

    def _revive(self) -> None:
        from autotunectl.service import process

        click.echo("the agent is gone: starting it again", err=True)
        process.revive(self.socket)

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


def connect(path: str | None, *, autostart: bool) -> Client:
    """A client whose agent answers; started here when there is none and `autostart` allows it. Raises ClientError."""
    client = Client(path, connect_s=0.0)
    try:
        client.check_protocol()
    except Unreachable:
        if not autostart:
            raise
        from autotunectl.service import process

        process.start(path)
        client = Client(path)
        client.check_protocol()
    return client
