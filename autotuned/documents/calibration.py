"""How long a context and how many requests at once the chosen model serves usefully."""

from __future__ import annotations

from typing import Literal, NotRequired

from autotuned.documents import Document


class CalibrationPoint(Document):
    """One measured point; `passes`: every request succeeded, with its TTFT p95 under the ceiling."""

    passes: bool
    ttft_p95_ms: float | None
    tps: float | None
    reason: str | None


class ContextPoint(CalibrationPoint):
    """A length of the context in tokens, in the order asked."""

    context: int


class ConcurrencyPoint(CalibrationPoint):
    """So many requests at once, in the order asked."""

    concurrency: int


class ContextDocument(Document):
    """The largest useful context, null where none was found; `bound` is the most that could be asked for."""

    answer: int | None
    ceiling_ms: int
    bound: int
    quantum: int
    points: list[ContextPoint]


class ConcurrencyDocument(Document):
    """The largest number of requests at once that passes, and the smallest with nearly the best throughput."""

    largest: int | None
    recommended: int | None
    ceiling_ms: int
    points: list[ConcurrencyPoint]
    reason: NotRequired[str]
    """Why it was not measured but is 1."""


class CalibrationDocument(Document):
    """Both, null where it was not asked for."""

    context: ContextDocument | None
    concurrency: ConcurrencyDocument | None


class BracketDocument(Document):
    """How far a calibration is: the largest value that passes, the smallest that does not."""

    calibrates: Literal["context", "concurrency"]
    points: int
    passes: int | None
    fails: int | None
