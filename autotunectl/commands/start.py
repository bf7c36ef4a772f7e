"""`start`: the request's flags, and following the run to its end."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from autotunectl.arguments import (
    APPLY_OPTIONS,
    SEARCH_OPTIONS,
    START_OPTIONS,
    json_option,
    request_options,
)
from autotunectl.client import CallError, Client, Unreachable
from autotunectl.output import (
    as_text,
    everywhere,
    given,
    make_live,
    present,
    say,
    started_row,
    warn,
)
from autotunectl.reach import Reach
from autotunectl.text import provider
from autotunectl.text import weights as plan_text
from autotuned.shared import wire

CANCEL_S = 10.0
"""How long a Ctrl-C waits for the agent to take note of it."""


@click.command()
@request_options(SEARCH_OPTIONS, START_OPTIONS)
@click.option(
    "--wait", is_flag=True, help="Follow the run, then print the recommendation; Ctrl-C cancels it."
)
@click.option(
    "--compare",
    "comparing",
    is_flag=True,
    help="At the end set it against the previous good run; means --wait.",
)
@click.option(
    "--apply",
    is_flag=True,
    default=None,
    help="Write a whole recommendation into the provider's configuration.",
)
@request_options(APPLY_OPTIONS)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@json_option()
@click.option("-v", "--verbose", is_flag=True, help="Say which agent is asked.")
@click.pass_obj
def start(
    reach: Reach,
    /,
    wait: bool,
    comparing: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    **request: Any,
) -> None:
    """Start a run; it goes on without this terminal.

    \b
    Example:
      autotunectl start --target-context 4000 --max-model-size 16B --wait
    """
    params = given(**request)
    if len(reach.hosts) > 1:
        if wait or dry_run:
            message = "--wait and --dry-run take one --host"
            raise click.UsageError(message)
        everywhere(reach, "start", params, started_row, as_json=as_json)
        return
    with reach.client() as client, Interrupts() as interrupts:
        if verbose:
            click.echo(f"agent at {client.path}", err=True)
        if dry_run:
            found = client.call("start", dry_run=True, **params)["plan"]
            warn(found["warnings"])
            click.echo(as_text(found)) if as_json else say(plan_text.plan(found))
            return
        if "search" not in params and "resume" not in params and _may_be_large(params):
            _tell_of_a_large_space(client, params)
        wait = wait or comparing
        if wait:
            interrupts.hold()
        try:
            begun = client.call("start", **params)
        except CallError as error:
            if as_json and error.data.get("run_id") and error.code != wire.BUSY:
                error.document = client.call("result", run_id=error.data["run_id"])
            raise
        if not wait:
            warn(begun["warnings"])  # who follows is told by the run's events
            _announce(begun, as_json=as_json)
            return
        _wait_for(
            reach,
            client,
            begun["run_id"],
            interrupts,
            as_json=as_json,
            comparing=comparing,
            applying=begun.get("apply", bool(request["apply"])),
        )


def _may_be_large(params: Mapping[str, Any]) -> bool:
    """Whether a request may come to more cells than one measures without a thought."""
    if params.get("axes"):
        return True
    usual = {"kv_bits_axis": 3, "max_batch_axis": 2, "max_context_axis": 1}
    return (
        math.prod(len(params.get(name) or " " * usual[name]) for name in usual) > plan_text.LISTED
    )


def _tell_of_a_large_space(client: Client, params: Mapping[str, Any]) -> None:
    """Say how long a large space takes; a request that is refused is refused by its start."""
    with contextlib.suppress(CallError):
        told = plan_text.large(client.call("start", dry_run=True, **params)["plan"])
        if told is not None:
            click.echo(told, err=True)


class Interrupts:
    """Ctrl-C, held back while a run is being asked for, so that none can fall between the start and the wait."""

    def __init__(self) -> None:
        self._held: bool = False
        self._pending: bool = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def hold(self) -> None:
        """From now on only remember it."""
        self._held = True

    def release(self) -> None:
        """Raise KeyboardInterrupt when it comes from now on, or at once if it has come meanwhile."""
        self._held = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _arrived(self, *_: object) -> None:
        if not self._held:
            raise KeyboardInterrupt
        self._pending = True


def _wait_for(
    reach: Reach,
    client: Client,
    run_id: str,
    interrupts: Interrupts,
    *,
    as_json: bool,
    comparing: bool,
    applying: bool,
) -> NoReturn:
    """Follow a run to its end and present it. The first Ctrl-C cancels the run, the second one leaves it alone.

    The result is asked for over `client`, open since the start: an agent that is told to stop ends the run, lets
    nobody in any more, and still answers whoever is connected.
    """
    from autotunectl.text import live_display

    cancelled = False
    told = live_display.Told()
    while True:
        try:
            interrupts.release()
            live_display.follow(reach.again, run_id, told)
            interrupts.hold()
            break
        except KeyboardInterrupt:
            interrupts.hold()
            if cancelled:
                click.echo("left: the agent goes on cancelling; see autotunectl status", err=True)
                sys.exit(wire.EXIT_INTERRUPTED_HERE)
            cancelled = True
            click.echo("cancelling; Ctrl-C again leaves that to the agent", err=True)
            with reach.again() as other:
                other.request("cancel", {"run_id": run_id}, timeout_s=CANCEL_S)
    try:
        document = _result(client, run_id)
    except Unreachable:  # it was restarted meanwhile
        client = reach.again()
        document = _result(client, run_id)
    present(document, as_json=as_json, told=told.warnings)
    if document["applied"] and not as_json:
        click.echo(provider.applied(provider.recipe(document), document["applied"]))
        make_live(document["applied"].get("hint"))
    if comparing:
        _compare(client, run_id, on_stderr=as_json)
    code = wire.EXIT_CODES.get(document["exit_reason"], 1)
    if code == 0 and applying and not document["applied"]:
        code = wire.EXIT_APPLY_REFUSED
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else code)


def _result(client: Client, run_id: str) -> dict[str, Any]:
    client.wait(run_id)
    found: dict[str, Any] = client.call("result", run_id=run_id)
    return found


def _compare(client: Client, run_id: str, *, on_stderr: bool) -> None:
    """Set the run against the previous good one; stdout holds nothing but the document where that is JSON."""
    from autotunectl.text import compare

    try:
        found = client.call("compare", b=run_id)
    except CallError as error:
        click.echo(f"nothing to compare: {error.message}", err=True)
        return
    click.echo("\n" + compare.comparison(found), err=on_stderr)


def _announce(begun: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(as_text(begun))
        return
    click.echo(begun["run_id"])
    click.echo(
        "follow it with: autotunectl watch; result: autotunectl show; end it: autotunectl cancel",
        err=True,
    )
