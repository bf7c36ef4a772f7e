"""How a command is declared, and what it gets: which agent is asked, and whether one may be started where none answers.

Every command loads this, so it loads nothing that only the starting of an agent needs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import click

from autotunectl.client import Client, ClientError, Unreachable

T = TypeVar("T")
MAX_AT_ONCE = 16
JSON_HELP = "One JSON document on stdout."


class Reach:
    """`hosts` are machines behind ssh; without any, the agent is this machine's.

    `as_json`: whether the answer is wanted as a document.
    """

    def __init__(self, socket: str | None, *, autostart: bool, hosts: tuple[str, ...]) -> None:
        self.socket, self.autostart, self.hosts = socket, autostart, hosts
        self.as_json = False

    def client(self) -> Client:
        """A client whose agent answers, started if need be. Raises ClientError, or UsageError for several hosts."""
        if not self.hosts:
            return self.here(autostart=self.autostart)
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

    def only_here(self) -> None:
        """Refuse a command that is about this machine where another one is named."""
        if self.hosts:
            message = "this command is about the machine on which it is typed: leave out --host"
            raise click.UsageError(message)

    def here(self, *, autostart: bool) -> Client:
        """A client of this machine's agent, started where there is none and `autostart` allows it."""
        client = Client(self.socket, connect_s=0.0)
        try:
            client.check_protocol()
        except Unreachable:
            if not autostart:
                raise
            from autotunectl.service import process

            process.start(self.socket)
            client = Client(self.socket)
            client.check_protocol()
        return client

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


def command(
    *examples: str, of: click.Group | None = None, json: str | None = JSON_HELP
) -> Callable[[Callable[..., object]], click.Command]:
    """A command called like its function, `of` a group without the group's name; it gets the `Reach`.

    Its help ends with the examples; `json` is what `--json` gives, None for a command without.
    """

    def declare(function: Callable[..., object]) -> click.Command:
        name = function.__name__.removeprefix(f"{of.name}_" if of else "").replace("_", "-")
        made = click.command(name, help=_help(function, examples))(click.pass_obj(function))
        if json is not None:
            made.params.append(_json_option(json))
        if of is not None:
            of.add_command(made)
        return made

    return declare


def group(
    *examples: str, alone: bool = False
) -> Callable[[Callable[[Reach], object]], click.Group]:
    """A group of commands; `alone`: it is a command itself where none of them is named."""

    def declare(function: Callable[[Reach], object]) -> click.Group:
        @functools.wraps(function)
        def unless_one_is_named(reach: Reach) -> None:
            if click.get_current_context().invoked_subcommand is None:
                function(reach)

        made = click.group(help=_help(function, examples), invoke_without_command=alone)(
            click.pass_obj(unless_one_is_named)
        )
        if alone:
            made.params.append(_json_option(JSON_HELP))
        return made

    return declare


def _help(function: Callable[..., object], examples: tuple[str, ...]) -> str:
    shown = "\n  ".join(["\b\nExample:", *examples])
    return f"{inspect.cleandoc(function.__doc__ or '')}\n\n{shown}"


def _json_option(text: str) -> click.Option:
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_want_json, help=text
    )


def _want_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.obj.as_json = True
