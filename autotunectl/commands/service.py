"""`install` and `uninstall`: the agent as a job of launchd or systemd."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from autotunectl.arguments import json_option
from autotunectl.output import as_text, fail, warn
from autotunectl.reach import Reach

if TYPE_CHECKING:
    from autotunectl.service import Service
    from autotunectl.service.install import Asked

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
