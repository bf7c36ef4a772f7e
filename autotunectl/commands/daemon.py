"""`daemon`: the agent started, stopped and told to read its settings again."""

from __future__ import annotations

from typing import Any

import click

from autotunectl.arguments import json_option
from autotunectl.client import Client
from autotunectl.commands.service import asked, cancel_option
from autotunectl.output import as_text, fail
from autotunectl.reach import Reach, connect
from autotuned.shared import wire


@click.group()
def daemon() -> None:
    """Start and stop the agent: through its job where that is installed, else without one.

    \b
    Example:
      autotunectl daemon restart
    """


@daemon.command("start")
@json_option()
@click.pass_obj
def daemon_start(reach: Reach, as_json: bool) -> None:
    """Start the agent, where none runs.

    \b
    Example:
      autotunectl daemon start
    """
    reach.here()
    with connect(reach.socket, autostart=True) as client:
        _running(client.call("version"), as_json=as_json)


@daemon.command("stop")
@cancel_option
@json_option()
@click.pass_obj
def daemon_stop(reach: Reach, cancel: bool, as_json: bool) -> None:
    """Stop the agent. Exit code 10: a run is active.

    \b
    Example:
      autotunectl daemon stop
    """
    from autotunectl.service import process

    reach.here()
    _end_run(reach, cancel=cancel)
    stopped = process.stop(reach.socket)
    if as_json:
        click.echo(as_text({"stopped": stopped}))
    else:
        click.echo("stopped" if stopped else "no agent was running")


@daemon.command("restart")
@cancel_option
@json_option()
@click.pass_obj
def daemon_restart(reach: Reach, cancel: bool, as_json: bool) -> None:
    """Stop the agent and start it again. Exit codes: 2 its settings cannot be used, 10 a run is active.

    In both cases the agent that runs goes on.

    \b
    Example:
      autotunectl daemon restart
    """
    from autotunectl.service import ServiceError, process, program

    reach.here()
    try:
        program.check(process.words(reach.socket))
    except ServiceError as error:
        fail(str(error), wire.EXIT_CODES["config_error"], error.remedy)
    _end_run(reach, cancel=cancel)
    process.stop(reach.socket)
    _running(process.start(reach.socket), as_json=as_json)


def _end_run(reach: Reach, *, cancel: bool) -> None:
    from autotunectl.service import install

    try:
        install.end_run(asked(reach, cancel=cancel))
    except install.Refused as error:
        fail(str(error), error.code, error.remedy)


@daemon.command("reload")
@json_option()
@click.pass_obj
def daemon_reload(reach: Reach, as_json: bool) -> None:
    """Have the agent read its settings again; says which of them need a restart.

    Settings that cannot be used are refused (exit 2), and those in use stay.

    \b
    Example:
      autotunectl daemon reload
    """
    with Client(reach.socket, connect_s=0.0) if not reach.hosts else reach.again() as client:
        found = client.call("reload")
    if as_json:
        click.echo(as_text(found))
        return
    click.echo(f"in use now: {', '.join(found['applied']) or 'nothing has changed'}")
    if found["restart"]:
        click.echo(f"after a restart: {', '.join(found['restart'])}")
        click.echo("hint: autotunectl daemon restart", err=True)


@daemon.command("status")
@json_option()
@click.pass_obj
def daemon_status(reach: Reach, as_json: bool) -> None:
    """Whether the agent runs; exit 9 when it does not.

    \b
    Example:
      autotunectl daemon status
    """
    with Client(reach.socket, connect_s=0.0) if not reach.hosts else reach.again() as client:
        found = client.call("version")
    click.echo(
        as_text(found) if as_json else f"running, pid {found['pid']}, version {found['version']}"
    )


def _running(version: dict[str, Any], *, as_json: bool) -> None:
    click.echo(as_text(version) if as_json else f"running, pid {version['pid']}")
