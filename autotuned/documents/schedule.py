"""The nightly re-tune, and what it has decided."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class DecisionDocument(Document):
    """One decision; `night` is the local date of the night, `outcome` how the run that it began has ended."""

    at: str
    night: str | None
    decision: Literal["fired", "checking", "skipped", "waiting", "missed"]
    reason: str
    run_id: str | None
    outcome: str | None


class NextDocument(Document):
    """When a run may begin next, and what stands in the way."""

    next_run_at: str | None
    paused: str | None
    fault: NotRequired[Annotated[str | None, Field(default=None)]]


class BriefDocument(NextDocument):
    """The schedule as `status` shows it."""

    enabled: bool
    at: str


class ScheduleSettings(Document):
    """The schedule as the operator has set it."""

    enabled: NotRequired[Annotated[bool, Field(default=False)]]
    at: NotRequired[Annotated[str, Field(default="03:30")]]
    window_s: NotRequired[Annotated[int, Field(default=14400, ge=60, le=86400)]]
    when: NotRequired[Annotated[Literal["stale", "always"], Field(default="stale")]]
    first: NotRequired[Annotated[Literal["tune", "check"], Field(default="tune")]]
    drain: NotRequired[Annotated[bool, Field(default=False)]]
    restart_foreground: NotRequired[Annotated[bool, Field(default=False)]]
    apply: NotRequired[Annotated[bool, Field(default=False)]]
    only_on_ac: NotRequired[Annotated[bool, Field(default=False)]]
    days: NotRequired[Annotated[tuple[Day, ...], Field(default=())]]
    request: NotRequired[Annotated[dict[str, Any], Field(default={})]]


class ScheduleDocument(ScheduleSettings):
    """The schedule, when a run may begin next, why it has paused itself, and the newest decisions first.

    `fault`: why it cannot fire although it is on.
    """

    next_run_at: str | None
    paused: str | None
    fault: NotRequired[Annotated[str | None, Field(default=None)]]
    set_at: str | None
    history: list[DecisionDocument]


class BegunDocument(ScheduleDocument):
    """The same, and the run that has begun."""

    run_id: str


class StaleResult(Document):
    """`stale`: something has changed since the last good run; `never_tuned`: there is none."""

    stale: bool
    never_tuned: bool
    reasons: list[str]
    last_run_id: str | None
