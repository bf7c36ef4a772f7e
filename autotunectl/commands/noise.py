"""`noise`: what the machine's own noise is."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotunectl.arguments import (
    DRAIN_OPTION,
    DURATION,
    DURATION_HELP,
    MAX_DURATION_OPTION,
    PORT_OPTION,
    RESTART_FOREGROUND_OPTION,
    Decorator,
    json_option,
    request_options,
    run_argument,
)
from autotunectl.output import as_text, given, present, warn
from autotunectl.reach import Reach
from autotuned.shared import wire

OPTIONS: list[Decorator] = [
    MAX_DURATION_OPTION,
    PORT_OPTION,
    DRAIN_OPTION,
    RESTART_FOREGROUND_OPTION,
]
"""How a measurement is made, as with `start`."""


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
@request_options(OPTIONS)
@click.option("--no-wait", is_flag=True, help="Return as soon as it has begun.")
@json_option()
@click.pass_obj
def noise(reach: Reach, /, run: str | None, no_wait: bool, as_json: bool, **wishes: object) -> None:
    """How far this machine's figures stray by themselves.

    Starts the recommended settings of RUN (the last good one) and their runner-up again and again, in forward and
    reverse order, and tells the smallest difference that a run can see. What it finds is kept with RUN: `show`,
    `compare` and the report then say whether the winner stands clear. Ctrl-C ends it; what it has is told.

    \b
    Example:
      autotunectl noise --pairs 5 --idle 30
    """
    begun = reach.call("noise", **given(run_id=run, **wishes))
    document, cancelled = _carried(reach, begun, no_wait=no_wait, as_json=as_json)
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else wire.EXIT_CODES[document["exit_reason"]])


@click.command()
@request_options(OPTIONS)
@click.option("--no-wait", is_flag=True, help="Return as soon as it has begun.")
@json_option()
@click.pass_obj
def check(reach: Reach, /, no_wait: bool, as_json: bool, **wishes: object) -> None:
    """Whether the applied recipe still serves as it did, in one start.

    Measures the recipe that was applied last, else that of the last good run, as often as its cell was, and sets it
    against those figures and this machine's noise. Nothing else is changed by it. Exit 0: same or faster, 22: slower,
    3: it fails.

    \b
    Example:
      autotunectl check --drain
    """
    begun = reach.call("check", **given(**wishes))
    document, cancelled = _carried(reach, begun, no_wait=no_wait, as_json=as_json)
    code = wire.EXIT_CODES[document["exit_reason"]]
    if cancelled:
        code = wire.EXIT_INTERRUPTED_HERE
    elif code == 0:
        failed, slower = wire.EXIT_CODES["no_feasible"], wire.EXIT_SLOWER
        code = {"fails": failed, "slower": slower}.get(document["check"]["verdict"], 0)
    sys.exit(code)


def _carried(
    reach: Reach, begun: dict[str, Any], *, no_wait: bool, as_json: bool
) -> tuple[dict[str, Any], bool]:
    """Follow a measurement to its end and print it; its document, and whether Ctrl-C has ended it."""
    warn(begun["warnings"])
    if no_wait:
        click.echo(as_text(begun) if as_json else begun["run_id"])
        sys.exit(0)
    cancelled = _follow(reach, begun["run_id"])
    with reach.again() as client:
        client.wait(begun["run_id"])
        document = client.call("result", run_id=begun["run_id"])
    present(document, as_json=as_json)
    return document, cancelled


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
