"""`install`, `uninstall` and `daemon`: the agent as a job of launchd or systemd, started, stopped and told to read its settings again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from autotunectl.arguments import json_option
from autotunectl.client import Client
from autotunectl.output import as_text, fail, show_answer, warn
from autotunectl.reach import Reach, connect
from autotuned.shared import wire

if TYPE_CHECKING:
    from autotunectl.service import Service
    from autotunectl.service.install import Asked
    from autotuned.documents.run import VersionDocument

cancel_option = click.option(
    "--cancel", "--force", "cancel", is_flag=True, help="Cancel a run that is active."
)


@click.command()
@cancel_option
@json_option()
@click.pass_obj
def install(reach: Reach, cancel: bool, as_json: bool) -> None:
    """Have the agent started at login, and again after a crash; also upgrades a former installation.

    Writes a launchd job (macOS) or a systemd user unit (Linux) with absolute paths, starts it, and
    waits until the agent answers. Exit codes: 1 refused by the service manager, 10 a run is active,
    13 a live provider is still owed its restore.

    \b
    Example:
      autotunectl install
    """
    from autotunectl.service import install as installer

    reach.here()
    with _told() as service:
        found = installer.install(service, asked(reach, cancel=cancel))
    warn(found["warnings"])
    if as_json:
        click.echo(as_text(found))
        return
    click.echo("installed" if found["changed"] else "already installed")
    click.echo(f"  job      {found['path']} ({found['kind']}, {found['where']})")
    click.echo(f"  program  {' '.join(found['program'])}")
    click.echo(f"  agent    pid {found['pid']}, version {found['version']}")


@click.command()
@cancel_option
@json_option()
@click.pass_obj
def uninstall(reach: Reach, cancel: bool, as_json: bool) -> None:
    """Take the agent's job away; a live provider that was stopped for a run is put back first.

    What was measured, the settings and the logs stay. Exit codes as those of install.

    \b
    Example:
      autotunectl uninstall
    """
    from autotunectl.service import install as installer

    reach.here()
    with _told() as service:
        found = installer.uninstall(service, asked(reach, cancel=cancel))
    if as_json:
        click.echo(as_text(found))
        return
    click.echo("uninstalled" if found["changed"] else "it was not installed")
    click.echo("kept: what was measured, the settings and the logs", err=True)


def asked(reach: Reach, *, cancel: bool) -> Asked:
    """What the operator wants, as the installer takes it."""
    from autotunectl.service.install import Asked

    say: Callable[[str], None] = lambda text: click.echo(text, err=True)  # noqa: E731
    return Asked(reach.socket, cancel, say)


@contextmanager
def _told() -> Iterator[Service]:
    """The service manager of this machine; its refusals as one line, a hint and an exit code."""
    from autotunectl import service
    from autotunectl.service.install import Refused

    if os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        fail("this would install the agent for root", 2, "run it without sudo")
    found = service.find()
    if found is None:
        fail(
            "neither launchctl nor systemctl is on the PATH",
            1,
            "start the agent without a service manager: autotunectl daemon start",
        )
    try:
        yield found
    except Refused as error:
        fail(str(error), error.code, error.remedy)
    except service.ServiceError as error:
        fail(str(error), 1, error.remedy)


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
    said = "stopped" if stopped else "no agent was running"
    show_answer({"stopped": stopped}, said, as_json=as_json)


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
    from autotunectl.service import ServiceError, process

    reach.here()
    try:
        process.check(process.words(reach.socket))
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
    found = _asked(reach, "reload")
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
    found = _asked(reach, "version")
    running = f"running, pid {found['pid']}, version {found['version']}"
    show_answer(found, running, as_json=as_json)


def _asked(reach: Reach, method: str) -> Any:
    """What the agent answers; none is started."""
    with Client(reach.socket, connect_s=0.0) if not reach.hosts else reach.again() as client:
        return client.call(method)


def _running(version: VersionDocument, *, as_json: bool) -> None:
    show_answer(version, f"running, pid {version['pid']}", as_json=as_json)
