"""`provider status`, `restore` and `forget`: the live provider, and what is owed to it.

All work without the agent, from its journal alone: this is the glass to break.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from autotunectl.arguments import json_option
from autotunectl.client import Client, NoAnswer, Unreachable
from autotunectl.output import as_text, say
from autotunectl.reach import Reach
from autotunectl.text import provider as provider_text
from autotuned.shared import wire

RESTORE_S = 240.0
"""A restore retries and verifies; the agent answers when it has come to an end."""


@click.group()
def provider() -> None:
    """The live provider, and what is owed to it.

    Exit 0: nothing is owed, 13: a restore is outstanding.

    \b
    Example:
      autotunectl provider status
    """


@provider.command("status")
@json_option()
@click.pass_obj
def provider_status(reach: Reach, as_json: bool) -> None:
    """The live provider and the lease; works without the agent.

    \b
    Example:
      autotunectl provider status
    """
    found = _ask(reach, "status")
    if found is None:
        _break_glass("status", as_json=as_json)
    answer = {"live_provider": found["live_provider"], "lease": found["lease"]}
    click.echo(as_text(answer)) if as_json else say(provider_text.lines(found))
    sys.exit(wire.EXIT_RESTORE_OUTSTANDING if provider_text.owed(found) else 0)


@provider.command("restore")
@json_option()
@click.pass_obj
def provider_restore(reach: Reach, as_json: bool) -> None:
    """Bring a drained live provider back now; works without the agent and without its database.

    \b
    Example:
      autotunectl provider restore
    """
    before = _ask(reach, "status")
    if before is None:
        _break_glass("restore", as_json=as_json)
    if before["lease"] is not None and not provider_text.owed(before):
        message = f"run {before['lease']['run_id']} has drained it, and restores it at its end"
        click.echo(as_text(before["lease"]) if as_json else f"{message}: autotunectl cancel")
        sys.exit(wire.EXIT_RESTORE_OUTSTANDING)
    with _client(reach) as client:
        answer = client.request("provider.restore", {}, timeout_s=RESTORE_S)
    if as_json:
        click.echo(as_text(answer))
    elif answer["restored"]:
        click.echo(
            "restored" if before["lease"] else "nothing is owed: no live provider is drained"
        )
    else:
        click.echo(
            f"NOT RESTORED: {answer['lease']['reason'] or answer['lease']['state']}", err=True
        )
        click.echo("hint: the agent goes on trying; autotunectl provider status", err=True)
    sys.exit(0 if answer["restored"] else wire.EXIT_RESTORE_OUTSTANDING)


@provider.command("forget")
@click.option("--yes", is_flag=True, help="Drop it; without this only what a restore would do.")
@json_option()
@click.pass_obj
def provider_forget(reach: Reach, yes: bool, as_json: bool) -> None:
    """Drop what is owed to a live provider that cannot be brought back, so that runs can start again.

    \b
    Example:
      autotunectl provider forget --yes
    """
    if _ask(reach, "status") is None:
        _break_glass("forget", as_json=as_json, words=["--yes"] if yes else [])
    with _client(reach) as client:
        answer = client.request("provider.forget", {"yes": yes}, timeout_s=RESTORE_S)
    click.echo(as_text(answer) if as_json else provider_text.forgotten(answer))
    sys.exit(wire.EXIT_RESTORE_OUTSTANDING if answer["lease"] else 0)


def _client(reach: Reach) -> Client:
    if reach.hosts:
        return reach.client()
    return Client(reach.socket, connect_s=0.0)


def _ask(reach: Reach, method: str) -> dict[str, Any] | None:
    """What the agent says; None where this machine's agent is dead, or does not answer."""
    try:
        with _client(reach) as client:
            return dict(client.request(method, {}, timeout_s=10.0))
    except (Unreachable, NoAnswer):
        if reach.hosts:
            raise
        return None


def _break_glass(command: str, *, as_json: bool, words: Sequence[str] = ()) -> NoReturn:
    """Do it without the agent, in a program of its own that needs nothing but the journal."""
    import subprocess

    click.echo("the agent does not answer: asking its journal", err=True)
    words = [command, *words, *(["--json"] if as_json else [])]
    sys.stdout.flush()
    done = subprocess.run(
        [sys.executable, "-m", "autotuned.host.restore.break_glass", *words], check=False
    )
    sys.exit(done.returncode)
