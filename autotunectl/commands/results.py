"""`show`, `runs`, `compare`, `history`, `check-stale`: what runs have found; does it still hold."""

from __future__ import annotations

import sys

import click

from autotunectl.arguments import json_option, run_argument
from autotunectl.completion import files
from autotunectl.output import (
    as_text,
    everywhere,
    fail,
    given,
    present,
    run_rows,
    say,
    show_answer,
    write_file,
)
from autotunectl.reach import Reach
from autotunectl.text import compare as compare_text
from autotunectl.text import layout, result
from autotuned.shared import wire


@click.command()
@run_argument()
@json_option("The whole result document.")
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
@click.pass_obj
def show(
    reach: Reach, run: str | None, as_json: bool, file: str | None, opening: bool, answers: bool
) -> None:
    """The recommendation of a run again, or its report.

    A file of that name is replaced. The page asks nobody for anything: it may be kept, sent or printed.

    \b
    Example:
      autotunectl show --report tune.html --open
    """
    if answers:
        if file is not None or opening:
            fail("--answers and --report exclude each other", 2, "the report has the answers in it")
        answered = reach.call("answers", **given(run_id=run))
        click.echo(as_text(answered)) if as_json else say(result.answers(answered))
        return
    if file is not None or opening:
        _report(reach, run, file, opening=opening, as_json=as_json)
        return
    present(reach.call("result", **given(run_id=run)), as_json=as_json)


@click.command()
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--all", "everything", is_flag=True, help="Also requests that were refused.")
@json_option()
@click.pass_obj
def runs(reach: Reach, limit: int, everything: bool, as_json: bool) -> None:
    """A table of runs, newest first.

    \b
    Example:
      autotunectl runs --limit 5
    """
    params = given(limit=limit, all=everything or None)
    if len(reach.hosts) > 1:
        everywhere(reach, "runs", params, run_rows, as_json=as_json)
        return
    found = reach.call("runs", **params)
    click.echo(
        as_text(found) if as_json else layout.columns(result.runs(found["runs"]), layout.width())
    )


def _report(
    reach: Reach, run: str | None, file: str | None, *, opening: bool, as_json: bool
) -> None:
    import tempfile
    import webbrowser
    from urllib.parse import quote

    if as_json:
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
        fail(
            f"{file}: cannot be written: {error.strerror or error}",
            1,
            "name a file in a folder of yours",
        )
    click.echo(path)
    if opening and not webbrowser.open(f"file://{quote(path)}"):
        click.echo("no browser could be started; open the file yourself", err=True)


@click.command()
@run_argument("a")
@run_argument("b")
@json_option()
@click.pass_obj
def compare(reach: Reach, a: str | None, b: str | None, as_json: bool) -> None:
    """Two runs, knob by knob and figure by figure; the last two good ones where none is named.

    Every difference is B against A, with an interval: a tie is what the noise of both runs explains.
    With A alone, B is the newest good run. Exit 11 where a run is missing.

    \b
    Example:
      autotunectl compare
    """
    found = reach.call("compare", **given(a=a, b=b))
    click.echo(as_text(found)) if as_json else say(compare_text.comparison(found))


@click.command()
@click.option("--limit", type=int, default=100, show_default=True)
@json_option()
@click.pass_obj
def history(reach: Reach, limit: int, as_json: bool) -> None:
    """Good tunes and checks over time: the recipe, what it ran on, its figures and verdicts.

    Newest first. A check's verdict is against the recipe's cell in the run that it belongs to.

    \b
    Example:
      autotunectl history
    """
    found = reach.call("history", limit=limit)
    if as_json or not found["history"]:
        show_answer(found, "no good run yet", as_json=as_json)
    else:
        click.echo(layout.columns(compare_text.history(found), layout.width()))


@click.command("check-stale")
@json_option()
@click.pass_obj
def check_stale(reach: Reach, as_json: bool) -> None:
    """Whether the last good recipe is still this machine's, and what has changed.

    Exit 0: fresh, 20: stale, 21: never tuned.

    \b
    Example:
      autotunectl check-stale || autotunectl start --wait
    """
    found = reach.call("stale")
    click.echo(as_text(found)) if as_json else say(result.staleness(found))
    if found["never_tuned"]:
        sys.exit(wire.EXIT_NEVER_TUNED)
    sys.exit(wire.EXIT_STALE if found["stale"] else 0)
