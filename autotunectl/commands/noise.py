"""`noise`: what the machine's own noise is."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotunectl.arguments import DURATION, DURATION_HELP, json_option, run_argument
from autotunectl.output import as_text, present, warn
from autotunectl.reach import Reach
from autotuned.shared import wire


@click.command()
@run_argument()
@click.option(
    "--pairs", type=int, help="How often the pair of settings is repeated.  [default: 10]"
)
@click.option(
    "--idle",
    "idle_s",
    type=DURATION,
    metavar=DURATION_HELP,
    help="Rest before each pair.  [default: 60s]",
)
@click.option(
    "--max-duration",
    type=DURATION,
    metavar=DURATION_HELP,
    help="Time for all of it.  [default: 2h]",
)
@click.option("--port", type=int, help="Where candidates listen.  [default: 18080]")
@click.option(
    "--drain",
    is_flag=True,
    default=None,
    help="Stop a live provider for the measurement, and bring it back after.",
)
@click.option(
    "--restart-foreground",
    is_flag=True,
    default=None,
    help="Start a drained foreground process again at the end.",
)
@click.option("--no-wait", is_flag=True, help="Return as soon as it has begun.")
@json_option()
@click.pass_obj
def noise(reach: Reach, /, run: str | None, no_wait: bool, as_json: bool, **wishes: Any) -> None:
    """How far this machine's figures stray by themselves.

    Starts the recommended settings of RUN (the last good one) and their runner-up again and again, in forward and
    reverse order, and tells the smallest difference that a run can see. What it finds is kept with RUN: `show`,
    `compare` and the report then say whether the winner stands clear. Ctrl-C ends it; what it has is told.

    \b
    Example:
      autotunectl noise --pairs 5 --idle 30
    """
    asked = {"run_id": run, **wishes}
    params = {name: value for name, value in asked.items() if value is not None}
    with reach.client() as client:
        begun = client.call("noise", **params)
    warn(begun["warnings"])
    if no_wait:
        click.echo(as_text(begun) if as_json else begun["run_id"])
        return
    cancelled = _follow(reach, begun["run_id"])
    with reach.again() as client:
        client.wait(begun["run_id"])
        document = client.call("result", run_id=begun["run_id"])
    present(document, as_json=as_json)
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else wire.EXIT_CODES[document["exit_reason"]])


def _follow(reach: Reach, run_id: str) -> bool:
    """Follow it to its end; True when Ctrl-C has cancelled it."""
    from autotunectl.text import live_display

    try:
        live_display.follow(reach.again, run_id)
    except KeyboardInterrupt:
        click.echo("cancelling", err=True)
        with reach.again() as client:
            client.call("cancel", run_id=run_id)
        return True
    return False
