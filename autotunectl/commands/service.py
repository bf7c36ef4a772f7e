"""`install`, `uninstall` and `daemon`: the agent as a job of launchd or systemd, started, stopped and told to read its settings again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from autotunectl.client import Client
from autotunectl.output import answer, as_text, fail, warn
from autotunectl.reach import Reach, command, group
from autotuned.shared import wire

if TYPE_CHECKING:
    from autotunectl.service.managers import Service

cancel_option = click.option(
    "--cancel", "--force", "cancel", is_flag=True, help="Cancel a run that is active."
)


@command("autotunectl install")
@cancel_option
def install(reach: Reach, cancel: bool) -> None:
    """Have the agent started at login, and again after a crash; also upgrades a former installation.

    Writes a launchd job (macOS) or a systemd user unit (Linux) with absolute paths, starts it, and
    waits until the agent answers. Exit codes: 1 refused by the service manager, 10 a run is active,
    13 a live provider is still owed its restore.
    """
    from autotunectl.service import install as installer

    reach.only_here()
    found = installer.install(_manager(), reach.socket, cancel=cancel)
    warn(found["warnings"])
    if reach.as_json:
        click.echo(as_text(found))
        return
    click.echo("installed" if found["changed"] else "already installed")
    click.echo(f"  job      {found['path']} ({found['kind']}, {found['where']})")
    click.echo(f"  program  {' '.join(found['program'])}")
    click.echo(f"  agent    pid {found['pid']}, version {found['version']}")


@command("autotunectl uninstall")
@cancel_option
def uninstall(reach: Reach, cancel: bool) -> None:
    """Take the agent's job away; a live provider that was stopped for a run is put back first.

    What was measured, the settings and the logs stay. Exit codes as those of install.
    """
    from autotunectl.service import install as installer

    reach.only_here()
    found = installer.uninstall(_manager(), reach.socket, cancel=cancel)
    if reach.as_json:
        click.echo(as_text(found))
        return
    click.echo("uninstalled" if found["changed"] else "it was not installed")
    click.echo("kept: what was measured, the settings and the logs", err=True)


def _manager() -> Service:
    from autotunectl.service import managers

    if os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        fail("this would install the agent for root", 2, "run it without sudo")
    found = managers.find()
    if found is None:
        remedy = "start the agent without a service manager: autotunectl daemon start"
        fail("neither launchctl nor systemctl is on the PATH", 1, remedy)
    return found


@group("autotunectl daemon restart")
def daemon(_: Reach) -> None:
    """Start and stop the agent: through its job where that is installed, else without one."""


@command("autotunectl daemon start", of=daemon)
def daemon_start(reach: Reach) -> None:
    """Start the agent, where none runs."""
    reach.only_here()
    with reach.here(autostart=True) as client:
        _say_running(reach, client.call("version"))


@command("autotunectl daemon stop", of=daemon)
@cancel_option
def daemon_stop(reach: Reach, cancel: bool) -> None:
    """Stop the agent. Exit code 10: a run is active."""
    from autotunectl.service import install, process

    reach.only_here()
    install.end_run(reach.socket, cancel=cancel)
    stopped = process.stop(reach.socket)
    said = "stopped" if stopped else "no agent was running"
    answer(reach, {"stopped": stopped}, said)


@command("autotunectl daemon restart", of=daemon)
@cancel_option
def daemon_restart(reach: Reach, cancel: bool) -> None:
    """Stop the agent and start it again. Exit codes: 2 its settings cannot be used, 10 a run is active.

    In both cases the agent that runs goes on.
    """
    from autotunectl.service import install, process
    from autotunectl.service.managers import ServiceError

    reach.only_here()
    try:
        process.check(process.words(reach.socket))
    except ServiceError as error:
        fail(str(error), wire.EXIT_CODES["config_error"], error.remedy)
    install.end_run(reach.socket, cancel=cancel)
    process.stop(reach.socket)
    _say_running(reach, process.start(reach.socket))


@command("autotunectl daemon reload", of=daemon)
def daemon_reload(reach: Reach) -> None:
    """Have the agent read its settings again; says which of them need a restart.

    Settings that cannot be used are refused (exit 2), and those in use stay.
    """
    found = _asked(reach, "reload")
    if reach.as_json:
        click.echo(as_text(found))
        return
    click.echo(f"in use now: {', '.join(found['applied']) or 'nothing has changed'}")
    if found["restart"]:
        click.echo(f"after a restart: {', '.join(found['restart'])}")
        click.echo("hint: autotunectl daemon restart", err=True)


@command("autotunectl daemon status", of=daemon)
def daemon_status(reach: Reach) -> None:
    """Whether the agent runs; exit 9 when it does not."""
    found = _asked(reach, "version")
    answer(reach, found, f"running, pid {found['pid']}, version {found['version']}")


def _asked(reach: Reach, method: str) -> Any:
    """What the agent answers; none is started."""
    with Client(reach.socket, connect_s=0.0) if not reach.hosts else reach.again() as client:
        return client.call(method)


def _say_running(reach: Reach, version: Any) -> None:
    answer(reach, version, f"running, pid {version['pid']}")
