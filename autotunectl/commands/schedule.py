"""`schedule`: the nightly re-tune, looked at, set, switched off, or begun by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotunectl.arguments import (
    APPLY_OPTIONS,
    DURATION,
    DURATION_HELP,
    SEARCH_OPTIONS,
    json_option,
    request_options,
)
from autotunectl.completion import DAYS, words
from autotunectl.output import as_text, given, say, show_answer
from autotunectl.reach import Reach
from autotunectl.text import layout
from autotunectl.text import schedule as render

if TYPE_CHECKING:
    from autotuned.documents.schedule import ScheduleDocument

HISTORY = 400


def _days(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    return [day.strip().lower() for day in value.split(",") if day.strip()]


@click.group()
def schedule() -> None:
    """Tune again at night, when something has changed. Off unless it is set.

    \b
    Example:
      autotunectl schedule set --at 03:30 --drain --apply
    """


@schedule.command("show")
@click.option("--history", is_flag=True, help="All decisions that are kept, newest first.")
@json_option()
@click.pass_obj
def schedule_show(reach: Reach, history: bool, as_json: bool) -> None:
    """The schedule, when a run may begin next, and what was decided.

    \b
    Example:
      autotunectl schedule show --history
    """
    found = reach.call("schedule.get", **given(history=HISTORY if history else None))
    _show(found, history=history, as_json=as_json)


@schedule.command("set")
@click.option("--at", metavar="HH:MM", help="Local time of day, e.g. 03:30.")
@click.option(
    "--window",
    "window_s",
    type=DURATION,
    metavar=DURATION_HELP,
    help="How long after that it may still begin.  [default: 4h]",
)
@click.option(
    "--when",
    metavar="WHEN",
    shell_complete=words("stale", "always"),
    help="stale or always.  [default: stale]",
)
@click.option(
    "--first",
    metavar="WHAT",
    shell_complete=words("tune", "check"),
    help="tune, or check: check the recipe, and tune only where it lost.  [default: tune]",
)
@click.option("--drain", is_flag=True, help="Stop the live provider for the run and bring it back.")
@click.option(
    "--restart-foreground",
    is_flag=True,
    help="May stop a server in a terminal too, and start it again.",
)
@click.option("--apply", is_flag=True, help="Write a whole recommendation into its configuration.")
@click.option("--only-on-ac", is_flag=True, help="Never on battery.")
@click.option(
    "--days",
    callback=_days,
    metavar="CSV",
    shell_complete=words(*DAYS, several=True),
    help="e.g. mon,thu.  [default: every day]",
)
@json_option()
@request_options(SEARCH_OPTIONS, APPLY_OPTIONS)
@click.pass_obj
def schedule_set(
    reach: Reach,
    /,
    at: str | None,
    window_s: float | None,
    when: str | None,
    first: str | None,
    drain: bool,
    restart_foreground: bool,
    apply: bool,
    only_on_ac: bool,
    days: list[str] | None,
    as_json: bool,
    **request: object,
) -> None:
    """Set the schedule anew: what is not given here gets its default, nothing is kept of an earlier one.

    The flags of `start` are fields of the scheduled request; those that are not given are taken from
    the last good run.

    \b
    Example:
      autotunectl schedule set --at 03:30 --window 4h --drain --apply --only-on-ac --days mon,thu
    """
    wishes = given(at=at, window_s=window_s, when=when, first=first, days=days)
    restart = given(
        restart_foreground=restart_foreground or None
    )  # an older agent does not know it
    permits = {"drain": drain, "apply": apply, "only_on_ac": only_on_ac, **restart}
    found = reach.call("schedule.set", **wishes, **permits, request=given(**request))
    _show(found, history=False, as_json=as_json)


def _show(found: ScheduleDocument, *, history: bool, as_json: bool) -> None:
    if as_json:
        click.echo(as_text(found))
    else:
        say(render.schedule(found, history=history, room=layout.width()))


@schedule.command("off")
@json_option()
@click.pass_obj
def schedule_off(reach: Reach, as_json: bool) -> None:
    """Switch the schedule off; a run in progress goes on.

    \b
    Example:
      autotunectl schedule off
    """
    _show(reach.call("schedule.set", enabled=False), history=False, as_json=as_json)


@schedule.command("run-now")
@json_option()
@click.pass_obj
def schedule_run_now(reach: Reach, as_json: bool) -> None:
    """Begin the scheduled run by hand, fresh or not, at any hour; it goes on without this terminal.

    \b
    Example:
      autotunectl schedule run-now
    """
    found = reach.call("schedule.run_now")
    show_answer(found, found["run_id"], as_json=as_json)
    if not as_json:
        click.echo("follow it with: autotunectl watch; result: autotunectl show", err=True)
