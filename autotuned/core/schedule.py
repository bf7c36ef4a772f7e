"""The scheduled re-tune: what the operator sets, validated once, and when it is due and may begin; without a clock.

A night is known by the local date on which it is due, so that it comes once: a time of day that a
clock change skips is due when the old clock would have shown it, one that is repeated is due the
first time. Times are UTC, the zone is given. Pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autotuned.core import request as requests
from autotuned.core.staleness import Verdict
from autotuned.descriptions import SHIPPED, Descriptions
from autotuned.errors import ConfigError, invalid, unknown

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OWN = ("drain", "apply", "trigger", "resume", "ignore_quarantine")
"""Fields of a request that the schedule has itself, or that make no sense night after night."""


def _time_of_day(value: str) -> str:
    with contextlib.suppress(ValueError):
        if len(value) == len("HH:MM"):
            return time.fromisoformat(value).strftime("%H:%M")
    raise ValueError("is not a time of day such as 03:30")


def _once(days: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(day for day in DAYS if day in days)


class Schedule(BaseModel):
    """A nightly re-tune. `at`: local time; `window_s`: seconds after it in which it may still begin.

    `days`: those of the nights' dates, all when empty. `request`: fields of `start`; the others are
    repeated from the last good run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    enabled: bool = False
    at: Annotated[str, AfterValidator(_time_of_day)] = "03:30"
    window_s: Annotated[int, Field(ge=60, le=24 * 3600)] = 4 * 3600
    when: Literal["stale", "always"] = "stale"
    first: Literal["tune", "check"] = "tune"
    """`check`: after a change the recipe is checked, and tuned again only where it lost."""
    drain: bool = False
    restart_foreground: bool = False
    """May stop a server that somebody runs from a terminal, for it is started again."""
    apply: bool = False
    only_on_ac: bool = False
    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        BeforeValidator(requests.as_tuple),
        AfterValidator(_once),
    ] = ()
    request: dict[str, Any] = {}


def parse(
    params: Mapping[str, object], before: Schedule, named: Descriptions = SHIPPED
) -> Schedule:
    """A schedule that is set anew, or `before` switched off or on. Raises ConfigError for the first problem.

    What is not given gets its default: nothing that an earlier setting allowed is allowed by accident.
    """
    if set(params) == {"enabled"}:
        return _checked({**before.model_dump(), **params}, named)
    if "at" not in params:
        raise ConfigError("at", None, "must be given: the local time of day, such as 03:30")
    if params.get("days") in ([], ()):
        raise ConfigError("days", [], "must name a day; leave it out for every night")
    for name, value in params.items():
        if name not in Schedule.model_fields:
            rule = "is not a parameter of schedule.set"
            raise unknown(name, value, rule, Schedule.model_fields)
    return _checked({"enabled": True, **params}, named)


def _checked(params: Mapping[str, object], named: Descriptions) -> Schedule:
    try:
        schedule = Schedule.model_validate(dict(params))
    except ValidationError as error:
        raise invalid(error) from None
    for name in OWN:
        if name in schedule.request:
            rule = "is not a field of the schedule's request"
            raise ConfigError(name, schedule.request[name], rule)
    requests.parse(schedule.request, named)
    return schedule


CRASHED = "crashed"
"""How a run has ended of whose end nothing was written down."""
FAILURES = 3
"""Failures in a row after which the schedule pauses itself."""
NEUTRAL = ("interrupted", "unknown")
"""Endings that say nothing about whether the next night would go well: somebody ended the run."""
JUST_NOW = timedelta(minutes=2)
"""A time of day that has passed by no more than this when it is set means tonight, not tomorrow."""
WRONG_CLOCK = timedelta(days=1)
"""A schedule set so far in the future was set while the clock was wrong."""


class Action(StrEnum):
    """What was decided: a run began; a check began, and the rest rests on it; no run will
    begin this night; not now, but perhaps later this night; it was slept through."""

    FIRED = "fired"
    CHECKING = "checking"
    SKIPPED = "skipped"
    WAITING = "waiting"
    MISSED = "missed"


BEGUN = (Action.FIRED, Action.CHECKING)
"""A run began."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision. `night` None: asked for by hand outside a window. `outcome`: how the run that it began has ended."""

    at: datetime
    night: date | None
    action: Action
    reason: str
    run_id: str | None = None
    outcome: str | None = None
    id: int = 0

    @property
    def failed(self) -> bool:
        """It began a run, and that ended badly."""
        return self.outcome not in (None, "ok", *NEUTRAL)


@dataclass(frozen=True, slots=True)
class Book:
    """What a decision rests on: the schedule, since when it holds, what was decided (oldest first), the last good run's start."""

    schedule: Schedule
    since: datetime | None = None
    decisions: tuple[Decision, ...] = ()
    last_good: datetime | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One night's time to begin in: `opens` <= t < `closes`."""

    night: date
    opens: datetime
    closes: datetime


def window(schedule: Schedule, night: date, zone: tzinfo) -> Window:
    """The window of a night; it never reaches into the next one."""
    opens = _due(schedule, night, zone)
    following = _due(schedule, night + timedelta(days=1), zone)
    return Window(night, opens, min(opens + timedelta(seconds=schedule.window_s), following))


def open_night(book: Book, now: datetime, zone: tzinfo) -> Window | None:
    """The window that is open now and not yet decided."""
    return next((found for found in _undecided(book, now, zone) if found.opens <= now), None)


def next_due(book: Book, now: datetime, zone: tzinfo) -> datetime | None:
    """When a run may begin next: now or later. None where the schedule is off or has paused itself."""
    if not book.schedule.enabled or paused(book, now):
        return None
    coming = next_look(book, now, zone)
    return None if coming is None else max(coming, now)


def next_look(book: Book, now: datetime, zone: tzinfo) -> datetime | None:
    """When to decide next; also while paused, because that is a decision too."""
    return min((found.opens for found in _undecided(book, now, zone)), default=None)


def gone_by(book: Book, now: datetime, zone: tzinfo) -> Decision | None:
    """What must be written down about the last night whose window has closed undecided; None where nothing must."""
    closed = [found for found in _windows(book, now, zone) if found.closes <= now]
    if not closed or _decided(book, closed[-1].night):
        return None
    last = closed[-1]
    held = waiting_for(book, last.night)
    if held is not None:
        return Decision(now, last.night, Action.SKIPPED, f"until its window closed: {held}")
    reason = "the agent did not run, or the machine was asleep or off, while its window was open"
    return Decision(now, last.night, Action.MISSED, reason)


def waiting_for(book: Book, night: date) -> str | None:
    """What a night waits for, as last written down."""
    waits = [d for d in _standing(book) if d.night == night and d.action is Action.WAITING]
    return waits[-1].reason if waits else None


def paused(book: Book, now: datetime) -> str | None:
    """Why the schedule has paused itself; a good run, or setting it again, ends that."""
    good = book.last_good if book.last_good is not None and book.last_good <= now else None
    in_a_row: list[Decision] = []
    for decision in _standing(book):
        counts = decision.action is Action.FIRED or decision.outcome == CRASHED
        if not counts or (good is not None and decision.at <= good):
            continue
        if decision.failed:
            in_a_row.append(decision)
        elif decision.outcome == "ok":
            in_a_row.clear()
    if len(in_a_row) < FAILURES:
        return None
    return f"paused after {len(in_a_row)} failures in a row, the last: {in_a_row[-1].outcome}"


def obstacle(
    schedule: Schedule, *, active_run: str | None, restore_outstanding: bool, on_ac: bool | None
) -> str | None:
    """What stands in the way just now and may go away while the window is open. `on_ac` None: not to be told."""
    if active_run is not None:
        return f"run {active_run} is active"
    if restore_outstanding:
        return "the live provider is still owed a restore"
    if schedule.only_on_ac and not on_ac:
        return "on battery" if on_ac is False else "cannot tell whether on battery"
    return None


def judge(schedule: Schedule, verdict: Verdict) -> tuple[Action, str]:
    """Fire, check or skip, and why, when nothing stands in the way."""
    if verdict.never_tuned:
        return Action.FIRED, "never tuned"
    if verdict.fresh:
        words = f"fresh: nothing has changed since {verdict.last_run_id}"
        return (Action.SKIPPED, words) if schedule.when == "stale" else (Action.FIRED, "always")
    action = Action.FIRED
    if schedule.first == "check" and verdict.checkable:
        action = Action.CHECKING
    return action, f"stale: {'; '.join(verdict.reasons)}"


def checking(book: Book) -> Decision | None:
    """The check that began under the schedule as it is set, while nothing has followed from it."""
    final = [each for each in _standing(book) if each.action is not Action.WAITING]
    begun = book.schedule.enabled and final and final[-1].action is Action.CHECKING
    return final[-1] if begun else None


def after_check(outcome: str, verdict: str | None, system: str) -> tuple[Action, str]:
    """What follows from a check that has ended so; `system`: the operating system it ran on."""
    if verdict in ("same", "faster"):
        return Action.SKIPPED, f"confirmed on {system}"
    if outcome in (CRASHED, *NEUTRAL):
        return Action.SKIPPED, f"the check has ended as {outcome}"
    return Action.FIRED, f"check: {verdict or outcome}"


def _due(schedule: Schedule, night: date, zone: tzinfo) -> datetime:
    """The instant of a night's time of day: the first one where it comes twice, the old clock's where it is skipped."""
    return datetime.combine(night, time.fromisoformat(schedule.at), zone).astimezone(UTC)


def _windows(book: Book, now: datetime, zone: tzinfo) -> list[Window]:
    """The windows of the allowed nights from a week ago to a week ahead that the schedule has been set for."""
    schedule = book.schedule
    if not schedule.enabled:
        return []
    since = book.since
    first = datetime.min.replace(tzinfo=UTC)
    if since is not None and since <= now + WRONG_CLOCK:
        first = since - JUST_NOW
    today = now.astimezone(zone).date()
    nights = (today + timedelta(days=offset) for offset in range(-8, 9))
    allowed = (n for n in nights if not schedule.days or DAYS[n.weekday()] in schedule.days)
    found = (window(schedule, night, zone) for night in allowed)
    return [each for each in found if each.opens >= first]


def _undecided(book: Book, now: datetime, zone: tzinfo) -> list[Window]:
    """Those that are open or to come, and about which something is still to be decided."""
    found = _windows(book, now, zone)
    return [each for each in found if now < each.closes and not _decided(book, each.night)]


def _standing(book: Book) -> list[Decision]:
    return [d for d in book.decisions if book.since is None or d.at >= book.since]


def _decided(book: Book, night: date) -> bool:
    """Nothing more is decided about this night. A run that began ends it, however often the schedule is set."""
    begun = any(d.night == night and d.action in BEGUN for d in book.decisions)
    final = (Action.SKIPPED, Action.MISSED)
    return begun or any(d.night == night and d.action in final for d in _standing(book))
