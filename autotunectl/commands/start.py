"""`start`: the request's flags, and following the run to its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from autotunectl import render
from autotunectl.arguments import json_option
from autotunectl.client import CallError, Client
from autotunectl.output import as_text, make_live, present, warn
from autotunectl.reach import Reach
from autotuned import wire


def _csv(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return (
        None
        if value is None
        else [word.strip() for word in value.split(",")]
        if value.strip()
        else []
    )


def _models(ctx: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    """Paths are of the folder in which the command is typed; the agent's is another one."""
    words = _csv(ctx, option, value)
    return (
        None
        if words is None
        else [
            os.path.abspath(os.path.expanduser(word))  # noqa: PTH100, PTH111 - words, not files
            if word.startswith(("./", "../", "~/"))
            else word
            for word in words
        ]
    )


def _csv_int(ctx: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
    words = _csv(ctx, option, value)
    return (
        None
        if words is None
        else [None if word == "unset" else _integer(word, option) for word in words]
    )


def _integer(word: str, option: click.Parameter) -> int:
    try:
        return int(word)
    except ValueError:
        message = f"{word!r} is not an integer"
        raise click.BadParameter(message, param=option) from None


REQUEST_OPTIONS = [
    click.option(
        "--target-context", type=int, help="Tokens of prompt and answer to serve.  [default: 2000]"
    ),
    click.option(
        "--candidate-models",
        callback=_models,
        metavar="CSV",
        help="Models, largest first; the order is the contract.",
    ),
    click.option("--max-model-size", metavar="SIZE", help="Trim the default list, e.g. 16B."),
    click.option("--min-model-size", metavar="SIZE", help="Trim the default list, e.g. 3B."),
    click.option(
        "--kv-bits-axis",
        callback=_csv_int,
        metavar="CSV",
        help="Of 4, 8, unset.  [default: unset,4,8]",
    ),
    click.option("--max-batch-axis", callback=_csv_int, metavar="CSV", help="[default: 1,2]"),
    click.option(
        "--max-context-axis", callback=_csv_int, metavar="CSV", help="[default: the target context]"
    ),
    click.option("--stage1-replicates", type=int, help="Requests a candidate.  [default: 1]"),
    click.option("--stage2-replicates", type=int, help="Requests a cell.  [default: 3]"),
    click.option(
        "--replicates",
        metavar="MODE",
        help="fixed, or auto: stop a cell that cannot win, ask a tie again.  [default: fixed]",
    ),
    click.option(
        "--resume",
        metavar="[RUN]",
        is_flag=False,
        flag_value="latest",
        help="Go on with a run that was cut off, by default the latest.",
    ),
    click.option(
        "--gate-ttft-ms", type=int, help="Longest p95 to the first token.  [default: 60000]"
    ),
    click.option("--tps-tie-epsilon", type=float, help="Relative width of a tie.  [default: 0.02]"),
    click.option(
        "--max-duration",
        type=float,
        metavar="SECONDS",
        help="Budget of the whole run.  [default: 7200]",
    ),
    click.option(
        "--drain",
        is_flag=True,
        default=None,
        help="Stop a live provider for the run, and bring it back after.",
    ),
    click.option(
        "--restart-foreground",
        is_flag=True,
        default=None,
        help="Start a drained foreground process again at the end.",
    ),
    click.option("--drain-grace", type=float, metavar="SECONDS", help="[default: 30]"),
    click.option("--port", type=int, help="Where candidates listen.  [default: 18080]"),
    click.option("--retain-runs", type=int, help="Runs to keep.  [default: 50]"),
    click.option("--cell-order", metavar="ORDER", help="axis, reverse or random.  [default: axis]"),
    click.option(
        "--cooldown-s", type=float, metavar="SECONDS", help="Pause before each cell.  [default: 0]"
    ),
    click.option("--seed", type=int, help="Of a random order of the cells.  [default: a new one]"),
    click.option(
        "--thermal-gate/--no-thermal-gate",
        default=None,
        help="Wait before each cell until the machine has cooled down.  [default: off]",
    ),
    click.option("--provider", metavar="KIND", help="auto, macprovider, mlx-lm or llama-server."),
]


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(REQUEST_OPTIONS):
        command = option(command)
    return command


@click.command()
@request_options
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
    params = {name: value for name, value in request.items() if value is not None}
    if len(reach.hosts) > 1:
        from autotunectl import fleet

        if wait or dry_run:
            message = "--wait and --dry-run take one --host"
            raise click.UsageError(message)
        fleet.show(reach, "start", params, fleet.started_row, as_json=as_json)
        return
    with reach.client() as client, Interrupts() as interrupts:
        if verbose:
            click.echo(f"agent at {client.path}", err=True)
        if dry_run:
            found = client.call("start", dry_run=True, **params)["plan"]
            warn(found["warnings"])
            click.echo(as_text(found) if as_json else render.plan(found))
            return
        wait = wait or comparing
        if wait:
            interrupts.hold()
        try:
            begun = client.call("start", **params)
        except CallError as error:
            if as_json and error.data.get("run_id") and error.code != wire.BUSY:
                click.echo(as_text(client.call("result", run_id=error.data["run_id"])))
            raise
        warn(begun["warnings"])
        if not wait:
            _announce(begun, as_json=as_json)
            return
        _wait_for(reach, begun["run_id"], interrupts, as_json=as_json, comparing=comparing)


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
    reach: Reach, run_id: str, interrupts: Interrupts, *, as_json: bool, comparing: bool
) -> NoReturn:
    """Follow a run to its end and present it. The first Ctrl-C cancels the run, the second one leaves it alone."""
    from autotunectl import display

    cancelled = False
    while True:
        try:
            interrupts.release()
            display.follow(reach.again, run_id)
            interrupts.hold()
            break
        except KeyboardInterrupt:
            interrupts.hold()
            if cancelled:
                click.echo("left: the agent goes on cancelling; see autotunectl status", err=True)
                sys.exit(wire.EXIT_INTERRUPTED_HERE)
            cancelled = True
            click.echo("cancelling; Ctrl-C again leaves that to the agent", err=True)
            with reach.again() as client:
                client.call("cancel", run_id=run_id)
    with reach.again() as client:
        client.wait(run_id)
        document = client.call("result", run_id=run_id)
        present(document, as_json=as_json)
        if document["applied"] and not as_json:
            from autotunectl import render_apply

            click.echo(render_apply.applied(render_apply.recipe(document), document["applied"]))
            make_live(document["applied"].get("hint"))
        if comparing:
            _compare(client, run_id, on_stderr=as_json)
    sys.exit(wire.EXIT_INTERRUPTED_HERE if cancelled else wire.EXIT_CODES[document["exit_reason"]])


def _compare(client: Client, run_id: str, *, on_stderr: bool) -> None:
    """Set the run against the previous good one; stdout holds nothing but the document where that is JSON."""
    from autotunectl import render_compare

    try:
        found = client.call("compare", b=run_id)
    except CallError as error:
        click.echo(f"nothing to compare: {error.message}", err=True)
        return
    click.echo("\n" + render_compare.comparison(found), err=on_stderr)


def _announce(begun: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(as_text(begun))
        return
    click.echo(begun["run_id"])
    click.echo(
        "follow it with: autotunectl watch; result: autotunectl show; end it: autotunectl cancel",
        err=True,
    )
