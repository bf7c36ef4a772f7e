"""What begins a run and follows it to its end: `start`, and the measurements `noise` and `check`."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Collection, Mapping
from typing import Any

import click

from autotunectl.arguments import (
    APPLY_OPTIONS,
    DRAIN_OPTIONS,
    MAX_DURATION_OPTION,
    PORT_OPTION,
    SEARCH_OPTIONS,
    START_OPTIONS,
    duration,
    flag,
    request_options,
    run_argument,
)
from autotunectl.client import CallError, Client, Unreachable
from autotunectl.output import answer, everywhere, given, make_live, present, warn
from autotunectl.reach import Reach, command
from autotunectl.text import plan, provider
from autotuned.shared import wire

CANCEL_S = 10.0
"""How long a Ctrl-C waits for the agent to take note of it."""
FOLLOW_HINT = (
    "follow it with: autotunectl watch; result: autotunectl show; end it: autotunectl cancel"
)
MEASURE_OPTIONS = [MAX_DURATION_OPTION, PORT_OPTION, *DRAIN_OPTIONS]
no_wait_option = click.option("--no-wait", is_flag=True, help="Return as soon as it has begun.")


@command("autotunectl start --target-context 4000 --max-model-size 16B --wait")
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
@flag("--apply", "Write a whole recommendation into the provider's configuration.")
@request_options(APPLY_OPTIONS)
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Say which agent is asked.")
def start(
    reach: Reach, /, wait: bool, comparing: bool, dry_run: bool, verbose: bool, **request: Any
) -> None:
    """Start a run; it goes on without this terminal."""
    params = given(**request)
    if len(reach.hosts) > 1 and (wait or dry_run):
        message = "--wait and --dry-run take one --host"
        raise click.UsageError(message)
    if len(reach.hosts) > 1:
        everywhere(reach, "start", params, plan.begun)
    with reach.client() as client, Interrupts() as interrupts:
        if verbose:
            click.echo(f"agent at {client.path}", err=True)
        if dry_run:
            found = client.call("start", dry_run=True, **params)["plan"]
            warn(found["warnings"])
            answer(reach, found, plan.plan)
            return
        if "search" not in params and "resume" not in params and _may_be_large(params):
            _tell_of_a_large_space(client, params)
        if wait or comparing:
            interrupts.hold()
        begun = _begun(reach, client, params)
        if not (wait or comparing):
            _announce(reach, begun)
            return
        document, cancelled = _followed(reach, client, begun["run_id"], interrupts)
        if comparing:
            _compare(client, begun["run_id"], on_stderr=reach.as_json)
    code = wire.EXIT_CODES.get(document["exit_reason"], 1)
    if code == 0 and begun.get("apply", bool(request["apply"])) and not document["applied"]:
        code = wire.EXIT_APPLY_REFUSED
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else code)


def _begun(reach: Reach, client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
    """Have it begun; with a refusal that is kept as a run comes the document of that run."""
    try:
        return dict(client.call("start", **params))
    except CallError as error:
        if reach.as_json and error.data.get("run_id") and error.code != wire.BUSY:
            error.document = client.call("result", run_id=error.data["run_id"])
        raise


def _may_be_large(params: Mapping[str, Any]) -> bool:
    """Whether a request may come to more cells than one measures without a thought."""
    if params.get("axes"):
        return True
    usual = {"kv_bits_axis": 3, "max_batch_axis": 2, "max_context_axis": 1}
    return math.prod(len(params.get(name) or " " * usual[name]) for name in usual) > plan.LISTED


def _tell_of_a_large_space(client: Client, params: Mapping[str, Any]) -> None:
    """Say how long a large space takes; a request that is refused is refused by its start."""
    with contextlib.suppress(CallError):
        told = plan.large(client.call("start", dry_run=True, **params)["plan"])
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


def _followed(
    reach: Reach, client: Client, run_id: str, interrupts: Interrupts, warned: Collection[str] = ()
) -> tuple[dict[str, Any], bool]:
    """Follow a run to its end and present it; its document, and whether the first Ctrl-C has cancelled it.

    The second Ctrl-C leaves it alone. The result is asked for over `client`, open since the start: an agent that is
    told to stop ends the run, lets nobody in any more, and still answers whoever is connected.
    """
    from autotunectl.text import live_display

    cancelled = False
    told = live_display.Told(warnings={*warned})
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
        with reach.again() as other:
            document = _result(other, run_id)
    present(reach, document, told.warnings)
    if document["applied"] and not reach.as_json:
        click.echo(provider.applied(provider.recipe(document), document["applied"]))
        make_live(document["applied"].get("hint"))
    return document, cancelled


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


def _announce(reach: Reach, begun: dict[str, Any]) -> None:
    warn(begun["warnings"])  # who follows is told by the run's events
    answer(reach, begun, begun["run_id"])
    if not reach.as_json:
        click.echo(FOLLOW_HINT, err=True)


@command("autotunectl noise --pairs 5 --idle 30")
@run_argument()
@click.option(
    "--pairs", type=int, help="How often the pair of settings is repeated.  [default: 10]"
)
@duration("--idle", "Rest before each pair.  [default: 60s]", "idle_s")
@request_options(MEASURE_OPTIONS)
@no_wait_option
def noise(reach: Reach, /, run: str | None, no_wait: bool, **wishes: object) -> None:
    """How far this machine's figures stray by themselves.

    Starts the recommended settings of RUN (the last good one) and their runner-up again and again, in forward and
    reverse order, and tells the smallest difference that a run can see. What it finds is kept with RUN: `show`,
    `compare` and the report then say whether the winner stands clear. Ctrl-C ends it; what it has is told.
    """
    params = given(run_id=run, **wishes)
    document, cancelled = _measured(reach, "noise", params, no_wait=no_wait)
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else wire.EXIT_CODES[document["exit_reason"]])


@command("autotunectl check --drain")
@request_options(MEASURE_OPTIONS)
@no_wait_option
def check(reach: Reach, /, no_wait: bool, **wishes: object) -> None:
    """Whether the applied recipe still serves as it did, in one start.

    Measures the recipe that was applied last, else that of the last good run, as often as its cell was, and sets it
    against those figures and this machine's noise. Nothing else is changed by it. Exit 0: same or faster, 22: slower,
    3: it fails.
    """
    document, cancelled = _measured(reach, "check", given(**wishes), no_wait=no_wait)
    code = wire.EXIT_CODES[document["exit_reason"]]
    if cancelled:
        code = wire.EXIT_INTERRUPTED_HERE
    elif code == 0:
        failed, slower = wire.EXIT_CODES["no_feasible"], wire.EXIT_SLOWER
        code = {"fails": failed, "slower": slower}.get(document["check"]["verdict"], 0)
    sys.exit(code)


def _measured(
    reach: Reach, method: str, params: dict[str, object], *, no_wait: bool
) -> tuple[dict[str, Any], bool]:
    """Begin a measurement and follow it to its end, as `_followed` does."""
    with reach.client() as client, Interrupts() as interrupts:
        interrupts.hold()
        begun = client.call(method, **params)
        if no_wait:
            _announce(reach, begun)
            sys.exit(0)
        warn(begun["warnings"])
        return _followed(reach, client, begun["run_id"], interrupts, begun["warnings"])
