"""`schedule`: the nightly re-tune, looked at, set, switched off, or begun by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from autotunectl.arguments import (
    APPLY_OPTIONS,
    SEARCH_OPTIONS,
    choice,
    csv,
    duration,
    flag,
    request_options,
)
from autotunectl.completion import DAYS, words
from autotunectl.output import answer, given
from autotunectl.reach import Reach, command, group
from autotunectl.text import layout, plan

if TYPE_CHECKING:
    from autotuned.documents.schedule import ScheduleDocument

HISTORY = 400
SCHEDULE_FIELDS = (
    *("at", "window_s", "when", "first", "days"),
    *("drain", "restart_foreground", "apply", "only_on_ac"),
)
"""What the schedule itself has; all else is a field of its request."""


def _days(ctx: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    days = csv(ctx, option, value)
    return None if days is None else [day.lower() for day in days if day]


@group("autotunectl schedule set --at 03:30 --drain --apply")
def schedule(_: Reach) -> None:
    """Tune again at night, when something has changed. Off unless it is set."""


@command("autotunectl schedule show --history", of=schedule)
@click.option("--history", is_flag=True, help="All decisions that are kept, newest first.")
def schedule_show(reach: Reach, history: bool) -> None:
    """The schedule, when a run may begin next, and what was decided."""
    found = reach.call("schedule.get", **given(history=HISTORY if history else None))
    _show(reach, found, history=history)


@command(
    "autotunectl schedule set --at 03:30 --window 4h --drain --apply --only-on-ac --days mon,thu",
    of=schedule,
)
@click.option("--at", metavar="HH:MM", help="Local time of day, e.g. 03:30.")
@duration("--window", "How long after that it may still begin.  [default: 4h]", "window_s")
@choice("--when", "WHEN", "stale always", "stale or always.  [default: stale]")
@choice(
    "--first",
    "WHAT",
    "tune check",
    "tune, or check: check the recipe, and tune only where it lost.  [default: tune]",
)
@click.option("--drain", is_flag=True, help="Stop the live provider for the run and bring it back.")
@flag("--restart-foreground", "May stop a server in a terminal too, and start it again.")
@click.option("--apply", is_flag=True, help="Write a whole recommendation into its configuration.")
@click.option("--only-on-ac", is_flag=True, help="Never on battery.")
@click.option(
    "--days",
    callback=_days,
    metavar="CSV",
    shell_complete=words(*DAYS, several=True),
    help="e.g. mon,thu.  [default: every day]",
)
@request_options(SEARCH_OPTIONS, APPLY_OPTIONS)
def schedule_set(reach: Reach, /, **given_here: object) -> None:
    """Set the schedule anew: what is not given here gets its default, nothing is kept of an earlier one.

    The flags of `start` are fields of the scheduled request; those that are not given are taken from
    the last good run.
    """
    wishes = given(**given_here)
    own = {name: wishes.pop(name) for name in SCHEDULE_FIELDS if name in wishes}
    _show(reach, reach.call("schedule.set", **own, request=wishes))


def _show(reach: Reach, found: ScheduleDocument, *, history: bool = False) -> None:
    answer(reach, found, lambda _: plan.schedule(found, history=history, room=layout.width()))


@command("autotunectl schedule off", of=schedule)
def schedule_off(reach: Reach) -> None:
    """Switch the schedule off; a run in progress goes on."""
    _show(reach, reach.call("schedule.set", enabled=False))


@command("autotunectl schedule run-now", of=schedule)
def schedule_run_now(reach: Reach) -> None:
    """Begin the scheduled run by hand, fresh or not, at any hour; it goes on without this terminal."""
    found = reach.call("schedule.run_now")
    answer(reach, found, found["run_id"])
    if not reach.as_json:
        click.echo("follow it with: autotunectl watch; result: autotunectl show", err=True)
