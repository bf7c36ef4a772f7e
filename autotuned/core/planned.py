"""The schedule as the operator sets it: every field is validated once, here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from autotuned.core import request as requests
from autotuned.errors import ConfigError, invalid, unknown

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OWN = ("drain", "apply", "trigger", "resume", "ignore_quarantine")
"""Fields of a request that the schedule has itself, or that make no sense night after night."""


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _time_of_day(value: str) -> str:
    if len(value) != len("HH:MM"):
        raise ValueError("is not a time of day such as 03:30")
    try:
        return time.fromisoformat(value).strftime("%H:%M")
    except ValueError:
        raise ValueError("is not a time of day such as 03:30") from None


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
    drain: bool = False
    restart_foreground: bool = False
    """May stop a server that somebody runs from a terminal, for it is started again."""
    apply: bool = False
    only_on_ac: bool = False
    days: Annotated[
        tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...],
        BeforeValidator(_tuple),
        AfterValidator(_once),
    ] = ()
    request: dict[str, Any] = {}


def parse(params: Mapping[str, Any], before: Schedule) -> Schedule:
    """A schedule that is set anew, or `before` switched off or on. Raises ConfigError for the first problem.

    What is not given gets its default: nothing that an earlier setting allowed is allowed by accident.
    """
    if set(params) == {"enabled"}:
        return _checked({**before.model_dump(), **params})
    if "at" not in params:
        raise ConfigError("at", None, "must be given: the local time of day, such as 03:30")
    if params.get("days") in ([], ()):
        raise ConfigError("days", [], "must name a day; leave it out for every night")
    for name, value in params.items():
        if name not in Schedule.model_fields:
            rule = "is not a parameter of schedule.set"
            raise unknown(name, value, rule, Schedule.model_fields)
    return _checked({"enabled": True, **params})


def _checked(params: Mapping[str, Any]) -> Schedule:
    try:
        schedule = Schedule.model_validate(dict(params))
    except ValidationError as error:
        raise invalid(error) from None
    for name in OWN:
        if name in schedule.request:
            rule = "is not a field of the schedule's request"
            raise ConfigError(name, schedule.request[name], rule)
    requests.parse(schedule.request)
    return schedule
