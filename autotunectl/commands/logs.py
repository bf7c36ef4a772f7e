"""`logs`: the agent's log, and the provider logs of a run's trials. Works with the agent dead, too."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NoReturn

import click

from autotunectl.arguments import json_option, run_argument
from autotunectl.client import Client, ClientError
from autotunectl.output import fail
from autotunectl.reach import Reach
from autotuned.shared import wire


@click.command()
@run_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option(
    "--lines",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="At most so many last lines.",
)
@json_option("The JSON lines as they are.")
@click.pass_obj
def logs(reach: Reach, run: str | None, follow: bool, lines: int, as_json: bool) -> None:
    """The agent's log; with RUN what the provider printed in each of its trials.

    Known secrets, and what looks like one, are masked. Exit code 11: no such run.

    \b
    Example:
      autotunectl logs -f
      autotunectl logs 20260301T031500Z-a1b2c3 --lines 20
    """
    from autotunectl.service import logfile

    reach.here()
    log = _log(reach)
    mask = logfile.mask()
    if run is not None:
        _of_run(log.parent / "runs", run, lines, follow=follow)
    if not follow and not log.exists():
        fail(f"there is no log at {log}", wire.EXIT_UNREACHABLE, "autotunectl daemon start")
    show = str if as_json else logfile.readable
    try:
        for line in logfile.follow(log, lines) if follow else logfile.last(log, lines):
            click.echo(show(mask(line)))
    except OSError as error:
        fail(f"{log}: {error.strerror}", 1, "autotunectl doctor")


def _log(reach: Reach) -> Path:
    """Where the agent says that its log is, or where it would be."""
    with contextlib.suppress(ClientError), Client(reach.socket, connect_s=0.0) as client:
        found = client.request("version", {}, timeout_s=5.0).get("log_path")
        if found:
            return Path(found)
    return Path(wire.log_folder()) / wire.LOG_NAME


def _of_run(folder: Path, run: str, lines: int, *, follow: bool) -> NoReturn:
    """The provider logs of one run, in the order of its trials; with `follow` the newest as it grows."""
    from autotunectl.service import logfile
    from autotuned.shared.text import printable

    mask = logfile.mask()
    found = sorted((folder / run).glob("*.log")) if run == Path(run).name else []
    if run != Path(run).name or not (folder / run).is_dir():
        fail(
            f"there are no provider logs of a run {run} in {folder}",
            wire.EXIT_NO_SUCH_RUN,
            "autotunectl runs",
        )
    for path in found if not follow else found[-1:]:
        click.echo(f"==> {path.name} <==")
        for line in logfile.follow(path, lines) if follow else logfile.last(path, lines):
            click.echo(printable(mask(line), ""))
    raise SystemExit(0)
