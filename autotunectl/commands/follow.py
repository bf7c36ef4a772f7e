"""`status`, `watch` and `cancel`: a run in progress, seen and ended from any terminal."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import click

from autotunectl.arguments import json_option, run_argument
from autotunectl.output import as_text, everywhere, fail, given, say, status_row
from autotunectl.reach import Reach
from autotunectl.text import status as status_text
from autotuned.shared import failures, wire

if TYPE_CHECKING:
    from autotunectl.client import Client


@click.command()
@run_argument()
@json_option()
@click.option("--watch", "watching", is_flag=True, help="Follow the run.")
@click.pass_obj
def status(reach: Reach, run: str | None, as_json: bool, watching: bool) -> None:
    """The agent, the run and what it is doing.

    \b
    Example:
      autotunectl status --json
    """
    if len(reach.hosts) > 1:
        everywhere(reach, "status", given(run_id=run), status_row, as_json=as_json)
        return
    with reach.client() as client:
        found = client.call("status", **given(run_id=run))
        if as_json:
            click.echo(as_text(found))
        else:
            say(status_text.status(found, _why(client, found["run"])))
    if watching and found["run"] is not None and found["run"]["state"] == "running":
        follow_run(reach, found["run"]["run_id"])


@click.command()
@run_argument()
@json_option("The run's events as JSON lines.")
@click.pass_obj
def watch(reach: Reach, run: str | None, as_json: bool) -> None:
    """Follow a run from any terminal; Ctrl-C detaches.

    \b
    Example:
      autotunectl watch
    """
    found = reach.call("status", **given(run_id=run))["run"]
    if found is None:
        fail("there is no run yet", wire.EXIT_NO_SUCH_RUN, "autotunectl start")
    if as_json:
        _print_events(reach, found)
        return
    if found["state"] != "running":
        click.echo(f"run {found['run_id']} has finished: {found['exit_reason']}", err=True)
        click.echo(f"hint: autotunectl show {found['run_id']}", err=True)
        return
    follow_run(reach, found["run_id"])


@click.command()
@run_argument()
@click.option("--no-wait", is_flag=True, help="Return as soon as cancelling has begun.")
@json_option()
@click.pass_obj
def cancel(reach: Reach, run: str | None, no_wait: bool, as_json: bool) -> None:
    """End a run early; what it has found so far is kept. One that has ended is no error.

    \b
    Example:
      autotunectl cancel
    """
    with reach.client() as client:
        found = client.call("cancel", **given(run_id=run))
        ended = client.wait(found["run_id"]) if found["cancelled"] and not no_wait else None
    if as_json:
        click.echo(as_text(found if ended is None else {**found, **ended}))
    elif not found["cancelled"]:
        click.echo("no run is active", err=True)
    elif ended is None:
        click.echo(f"cancelling {found['run_id']}")
    else:
        click.echo(f"{found['run_id']} ended: {ended['exit_reason']}")


def _why(client: Client, run: dict[str, Any] | None) -> str | None:
    """Why a run that has ended made no recommendation."""
    if run is None or run["state"] == "running" or run["best"] is not None:
        return None
    error = client.call("result", run_id=run["run_id"])["error"]
    return None if error is None else str(error["message"])


def _print_events(reach: Reach, run: dict[str, Any]) -> None:
    """All events of a run from its beginning, one JSON document a line, until it ends; Ctrl-C detaches."""
    patience_s = None if run["state"] == "running" else 1.0  # of a finished run some may be gone
    with contextlib.suppress(KeyboardInterrupt), reach.again() as client:
        for event in client.events(run_id=run["run_id"], since=0, timeout_s=patience_s):
            click.echo(json.dumps(event, ensure_ascii=False))
            if event["type"] == "run.finished":
                return


def follow_run(reach: Reach, run_id: str) -> None:
    from autotunectl.text import live_display

    try:
        reason = live_display.follow(reach.again, run_id)
        if reason == "interrupted":
            click.echo(f"hint: {failures.hint(reason, {'run_id': run_id})}", err=True)
    except KeyboardInterrupt:
        click.echo("detached: the run goes on; autotunectl watch", err=True)
