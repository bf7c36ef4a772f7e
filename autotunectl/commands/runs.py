"""Runs, seen from any terminal: what one does (`status`, `watch`, `cancel`), what they have found, whether it still holds."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from autotunectl.arguments import run_argument
from autotunectl.completion import files
from autotunectl.output import (
    answer,
    answer_table,
    as_text,
    everywhere,
    fail,
    given,
    present,
    say,
    write_file,
)
from autotunectl.reach import Reach, command
from autotunectl.text import compare as compare_text
from autotunectl.text import result
from autotunectl.text import status as status_text
from autotuned.shared import failures, wire

if TYPE_CHECKING:
    from autotunectl.client import Client
    from autotuned.documents.schedule import StaleResult


@command("autotunectl status --json")
@run_argument()
@click.option("--watch", "watching", is_flag=True, help="Follow the run.")
def status(reach: Reach, run: str | None, watching: bool) -> None:
    """The agent, the run and what it is doing."""
    if len(reach.hosts) > 1:
        everywhere(reach, "status", given(run_id=run), status_text.brief)
    with reach.client() as client:
        found = client.call("status", **given(run_id=run))
        if reach.as_json:
            click.echo(as_text(found))
        else:
            say(status_text.status(found, _why(client, found["run"])))
    if watching and found["run"] is not None and found["run"]["state"] == "running":
        _follow(reach, found["run"]["run_id"])


@command("autotunectl watch", json="The run's events as JSON lines.")
@run_argument()
def watch(reach: Reach, run: str | None) -> None:
    """Follow a run from any terminal; Ctrl-C detaches."""
    found = reach.call("status", **given(run_id=run))["run"]
    if found is None:
        fail("there is no run yet", wire.EXIT_NO_SUCH_RUN, "autotunectl start")
    if reach.as_json:
        _print_events(reach, found)
    elif found["state"] == "running":
        _follow(reach, found["run_id"])
    else:
        click.echo(f"run {found['run_id']} has finished: {found['exit_reason']}", err=True)
        click.echo(f"hint: autotunectl show {found['run_id']}", err=True)


@command("autotunectl cancel")
@run_argument()
@click.option("--no-wait", is_flag=True, help="Return as soon as cancelling has begun.")
def cancel(reach: Reach, run: str | None, no_wait: bool) -> None:
    """End a run early; what it has found so far is kept. One that has ended is no error."""
    with reach.client() as client:
        found = client.call("cancel", **given(run_id=run))
        ended = client.wait(found["run_id"]) if found["cancelled"] and not no_wait else None
    if reach.as_json:
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


def _follow(reach: Reach, run_id: str) -> None:
    from autotunectl.text import live_display

    try:
        reason = live_display.follow(reach.again, run_id)
        if reason == "interrupted":
            click.echo(f"hint: {failures.hint(reason, {'run_id': run_id})}", err=True)
    except KeyboardInterrupt:
        click.echo("detached: the run goes on; autotunectl watch", err=True)


@command("autotunectl show --report tune.html --open", json="The whole result document.")
@run_argument()
@click.option(
    "--report",
    "file",
    metavar="FILE",
    shell_complete=files,
    help="Write the report as one HTML file instead; - for stdout.",
)
@click.option("--open", "opening", is_flag=True, help="Show the report in the browser.")
@click.option(
    "--answers", is_flag=True, help="What the cells answered to the quality guard, side by side."
)
def show(reach: Reach, run: str | None, file: str | None, opening: bool, answers: bool) -> None:
    """The recommendation of a run again, or its report.

    A file of that name is replaced. The page asks nobody for anything: it may be kept, sent or printed.
    """
    reported = file is not None or opening
    if answers and reported:
        fail("--answers and --report exclude each other", 2, "the report has the answers in it")
    if answers:
        answer(reach, reach.call("answers", **given(run_id=run)), result.answers)
    elif reported:
        _report(reach, run, file, opening=opening)
    else:
        present(reach, reach.call("result", **given(run_id=run)))


def _report(reach: Reach, run: str | None, file: str | None, *, opening: bool) -> None:
    import tempfile
    import webbrowser
    from urllib.parse import quote

    if reach.as_json:
        fail("--json and --report exclude each other", 2, "autotunectl show --json > run.json")
    if file == "-" and opening:
        fail("--open needs a file, not stdout", 2, "autotunectl show --report tune.html --open")
    html = reach.call("report", **given(run_id=run))["html"]
    if file == "-":
        click.echo(html, nl=False)
        return
    try:
        folder = None if file else tempfile.mkdtemp(prefix="autotuned-report-")
        path = write_file(file or f"{folder}/report.html", html)
    except OSError as error:
        reason = error.strerror or error
        fail(f"{file}: cannot be written: {reason}", 1, "name a file in a folder of yours")
    click.echo(path)
    if opening and not webbrowser.open(f"file://{quote(path)}"):
        click.echo("no browser could be started; open the file yourself", err=True)


@command("autotunectl runs --limit 5")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--all", "everything", is_flag=True, help="Also requests that were refused.")
def runs(reach: Reach, limit: int, everything: bool) -> None:
    """A table of runs, newest first."""
    params = given(limit=limit, all=everything or None)
    if len(reach.hosts) > 1:
        everywhere(reach, "runs", params, result.runs)
    found = reach.call("runs", **params)
    answer_table(reach, found, result.runs(found))


@command("autotunectl compare")
@run_argument("a")
@run_argument("b")
def compare(reach: Reach, a: str | None, b: str | None) -> None:
    """Two runs, knob by knob and figure by figure; the last two good ones where none is named.

    Every difference is B against A, with an interval: a tie is what the noise of both runs explains.
    With A alone, B is the newest good run. Exit 11 where a run is missing.
    """
    answer(reach, reach.call("compare", **given(a=a, b=b)), compare_text.comparison)


@command("autotunectl history")
@click.option("--limit", type=int, default=100, show_default=True)
def history(reach: Reach, limit: int) -> None:
    """Good tunes and checks over time: the recipe, what it ran on, its figures and verdicts.

    Newest first. A check's verdict is against the recipe's cell in the run that it belongs to.
    """
    found = reach.call("history", limit=limit)
    answer_table(reach, found, compare_text.history(found), "no good run yet")


@command("autotunectl check-stale || autotunectl start --wait")
def check_stale(reach: Reach) -> None:
    """Whether the last good recipe is still this machine's, and what has changed.

    Exit 0: fresh, 20: stale, 21: never tuned.
    """
    if len(reach.hosts) > 1:
        everywhere(reach, "stale", {}, result.stale_row, _stale_code)
    found = reach.call("stale")
    answer(reach, found, result.staleness)
    sys.exit(_stale_code(found))


def _stale_code(found: StaleResult) -> int:
    if found["never_tuned"]:
        return wire.EXIT_NEVER_TUNED
    return wire.EXIT_STALE if found["stale"] else 0
