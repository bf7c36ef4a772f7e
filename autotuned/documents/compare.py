"""Two results set against each other."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document, Moment
from autotuned.documents.noise import LeadDocument
from autotuned.documents.result import CheckedDocument
from autotuned.documents.trial import KnobsDocument

Verdict = Literal["a is better", "b is better", "tie", "cannot tell"]


class SideDocument(Document):
    """One of the two runs."""

    run_id: str
    started_at: str
    model: str
    knobs: KnobsDocument
    tps_median: float
    ttft_p95_ms: float
    replicates: int
    partial: bool
    recipe_hash: str | None
    lead: NotRequired[Annotated[LeadDocument | None, Field(default=None)]]
    """Whether its winner stands clear of the runner-up, by `noise` where that has measured it."""


class ValueDocument(Document):
    """One setting or fact on both sides."""

    name: str
    a: Any
    b: Any
    same: bool


class FigureDocument(Document):
    """One measured figure: the medians, and `relative` = b / a - 1 with its interval from `low` to `high`.

    `noise` is the relative spread of one value that it was judged by, from so many `degrees_of_freedom`.
    Without an interval, or without values on a side, the verdict is `cannot tell`.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    a: float | None
    b: float | None
    count_a: int
    count_b: int
    relative: float | None
    low: float | None
    high: float | None
    noise: float | None
    degrees_of_freedom: int
    exceeds_noise: bool | None
    verdict: Verdict


class CellDifferenceDocument(Document):
    """Tokens per second of one cell that both runs measured with the same model."""

    knobs: KnobsDocument
    tps: FigureDocument


class DifferencesDocument(Document):
    """`even` is false where the runs differ in what they measured on or asked for; `uneven` names each such thing."""

    confidence: float
    even: bool
    uneven: list[ValueDocument]
    knobs: list[ValueDocument]
    figures: list[FigureDocument]
    cells: list[CellDifferenceDocument]
    smallest_difference: NotRequired[Annotated[float | None, Field(default=None)]]
    """Of tokens per second, as `noise` has measured it for one of the runs: what is smaller is a tie."""


class ComparisonDocument(Document):
    """What `compare` answers."""

    a: SideDocument
    b: SideDocument
    differences: DifferencesDocument


class PastDocument(Document):
    """A good tune, or a check with a verdict: the recipe, what it was measured on, its figures.

    `power_source`: `ac` or `battery`; null where unknown. `check` is null for a tune.
    """

    run_id: str
    kind: Literal["tune", "check"]
    at: Moment
    trigger: str
    os_version: str
    provider: str | None
    binary_version: str
    power_source: str | None
    model: str
    knobs: KnobsDocument
    target_context: int
    tps_median: float | None
    ttft_p95_ms: float | None
    applied: bool
    check: CheckedDocument | None


class HistoryDocument(Document):
    """Good tunes and checks, newest first."""

    history: list[PastDocument]
