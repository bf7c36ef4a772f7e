"""A machine's own noise: within one run, and as `noise` has measured it."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document

Verdict = Literal["clear", "tie", "runner-up is faster", "cannot tell"]


class TellsDocument(Document):
    """The smallest relative difference of two cells that so many replicates each can tell."""

    replicates: int
    relative: float


class LeadDocument(Document):
    """How much faster the winner is than its runner-up, relative, with its interval where it is known."""

    relative: float
    low: float | None
    high: float | None
    verdict: Verdict


class OrderDocument(Document):
    """Whether the order decides. `later` is how much faster a second start is than the first, relative."""

    pairs: int
    mismatching: int
    tolerated: int
    biased: bool
    later: float | None
    later_low: float | None
    later_high: float | None


class ProbesDocument(Document):
    """One request of each start, held against what all requests of its cell say about the gate.

    A rate is null where no start could have made that mistake.
    """

    count: int
    false_fits: int
    false_fit_rate: float | None
    false_rejects: int
    false_reject_rate: float | None


class MeasuredDocument(Document):
    """The machine's own noise as `noise` has measured it; spreads are relative standard deviations.

    `start_spread`: between the medians of starts of one cell, with so many `degrees_of_freedom`.
    `request_spread`: between requests of one start. `tps`: the mean of each cell, in tokens per second.
    """

    run_id: str
    of_run: str
    at: str
    pairs: int
    replicates: int
    knobs: list[dict[str, int | None]]
    tps: list[float]
    confidence: NotRequired[Annotated[float, Field(default=0.9)]]
    request_spread: float | None
    start_spread: float | None
    degrees_of_freedom: int
    smallest_difference: float | None
    smallest_difference_tps: float | None
    tells: list[TellsDocument]
    probes: ProbesDocument
    order: OrderDocument
    lead: LeadDocument | None


class NoiseDocument(Document):
    """A run's own noise, by the requests within its cells, and what `noise` has measured since; fields that
    are not known are left out."""

    tps_relative_spread: NotRequired[Annotated[float | None, Field(default=None)]]
    degrees_of_freedom: NotRequired[Annotated[int | None, Field(default=None)]]
    runner_up: NotRequired[Annotated[dict[str, int | None] | None, Field(default=None)]]
    lead: NotRequired[Annotated[LeadDocument | None, Field(default=None)]]
    measured: NotRequired[Annotated[MeasuredDocument | None, Field(default=None)]]
