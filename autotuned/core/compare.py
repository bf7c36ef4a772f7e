"""Two results set against each other: knob by knob, figure by figure, and what of it is more than noise.

Takes two result documents that have a recommendation; `a` is the earlier side, and every difference
is `b` relative to `a`. How it is judged stands on top of `core/stats.py`. Pure; knows no store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from autotuned.core import stats
from autotuned.core.noise import LeadDocument, MeasuredDocument
from autotuned.core.pipeline import same_length
from autotuned.core.result import (
    CellDocument,
    KnobsDocument,
    RecommendationDocument,
    ResultDocument,
    SampleDocument,
)

CONFIDENCE = 0.95

Verdict = Literal["a is better", "b is better", "tie", "cannot tell"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SideDocument(_Document):
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
    lead: LeadDocument | None = None
    """Whether its winner stands clear of the runner-up, by `noise` where that has measured it."""


class ValueDocument(_Document):
    """One setting or fact on both sides."""

    name: str
    a: Any
    b: Any
    same: bool


class FigureDocument(_Document):
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


class CellDifferenceDocument(_Document):
    """Tokens per second of one cell that both runs measured with the same model."""

    knobs: KnobsDocument
    tps: FigureDocument


class DifferencesDocument(_Document):
    """`even` is false where the runs differ in what they measured on or asked for; `uneven` names each such thing."""

    confidence: float
    even: bool
    uneven: list[ValueDocument]
    knobs: list[ValueDocument]
    figures: list[FigureDocument]
    cells: list[CellDifferenceDocument]
    smallest_difference: float | None = None
    """Of tokens per second, as `noise` has measured it for one of the runs: what is smaller is a tie."""


class ComparisonDocument(_Document):
    """What `compare` answers."""

    a: SideDocument
    b: SideDocument
    differences: DifferencesDocument


def comparable(document: Mapping[str, Any]) -> bool:
    """True for a result that has something to compare: a recommendation, whole or partial."""
    return document.get("recommendation") is not None


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> ComparisonDocument:
    """Set two comparable result documents against each other. Raises ValueError for one that is none."""
    first, second = _Run(a), _Run(b)
    uneven = [value for value in _circumstances(first, second) if not value.same]
    smallest = second.smallest if second.smallest is not None else first.smallest
    return ComparisonDocument(
        a=first.side(),
        b=second.side(),
        differences=DifferencesDocument(
            confidence=CONFIDENCE,
            even=not uneven,
            uneven=uneven,
            knobs=_values(first.answer.knobs.model_dump(), second.answer.knobs.model_dump()),
            figures=[
                *(_seen(_sampled(*figure, first, second), smallest) for figure in SAMPLED),
                _load(first, second),
            ],
            cells=_cells(first, second, smallest),
            smallest_difference=smallest,
        ),
    )


SAMPLED: tuple[tuple[str, str, Literal["higher", "lower"]], ...] = (
    ("tps", "tok/s", "higher"),
    ("ttft_ms", "ms", "lower"),
    ("decode_tps", "tok/s", "higher"),
    ("prefill_tps", "tok/s", "higher"),
)
"""The figures that every replicate has: name of the sample's field, unit, and what is better."""


class _Run:
    """A result that has a recommendation, and the cell that it came from."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.result = ResultDocument.model_validate(document, extra="ignore")
        if self.result.recommendation is None:
            message = f"run {self.result.run_id} has no recommendation"
            raise ValueError(message)
        self.answer: RecommendationDocument = self.result.recommendation
        self.cells = [cell for cell in self.result.stage2 if cell.fits]
        chosen = [cell for cell in self.cells if cell.knobs == self.answer.knobs]
        exact = [cell for cell in chosen if cell.tps_median == self.answer.tps_median]
        self.best: CellDocument | None = next(iter([*exact, *chosen]), None)
        counts = [] if self.best is None else _reader("completion_tokens")(self.best.samples)
        self.answer_tokens = stats.median(counts) if counts else None
        self.measured: MeasuredDocument | None = self.result.noise.measured
        self.smallest = None if self.measured is None else self.measured.smallest_difference

    def side(self) -> SideDocument:
        answer = self.answer
        return SideDocument(
            run_id=self.result.run_id,
            started_at=self.result.started_at,
            model=answer.model,
            knobs=answer.knobs,
            tps_median=answer.tps_median,
            ttft_p95_ms=answer.ttft_p95_ms,
            replicates=answer.replicates,
            partial=answer.partial is True,
            recipe_hash=self.result.recipe_hash,
            lead=self.result.noise.lead if self.measured is None else self.measured.lead,
        )


def _circumstances(a: _Run, b: _Run) -> list[ValueDocument]:
    """What both runs should share for their figures to mean the same."""
    return [
        *_values(a.result.machine.model_dump(), b.result.machine.model_dump(), "machine."),
        *_values({"provider": a.result.provider}, {"provider": b.result.provider}),
        *_values(a.result.inputs.model_dump(), b.result.inputs.model_dump(), "inputs."),
        *_values({"model": a.answer.model}, {"model": b.answer.model}),
        ValueDocument(
            name="answer_tokens",
            a=a.answer_tokens,
            b=b.answer_tokens,
            same=same_length(a.answer_tokens, b.answer_tokens),
        ),
    ]


def _values(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[ValueDocument]:
    return [
        ValueDocument(name=prefix + name, a=a[name], b=b[name], same=a[name] == b[name])
        for name in a
    ]


def _sampled(
    name: str, unit: str, better: Literal["higher", "lower"], a: _Run, b: _Run
) -> FigureDocument:
    """A figure of the recommended cells, judged by the spread within every cell of both runs."""
    read = _reader(name)
    groups = [read(cell.samples) for run in (a, b) for cell in run.cells]
    values = [read(run.best.samples) if run.best is not None else [] for run in (a, b)]
    return _figure(name, unit, better, values[0], values[1], stats.pooled_spread(groups))


def _load(a: _Run, b: _Run) -> FigureDocument:
    """The time to load, over all cells of a run: a cell loads once only, and knobs hardly change it."""
    groups = [[cell.load_ms for cell in run.cells if cell.load_ms] for run in (a, b)]
    return _figure("load_ms", "ms", "lower", groups[0], groups[1], stats.pooled_spread(groups))


def _seen(figure: FigureDocument, smallest: float | None) -> FigureDocument:
    """Requests of one start cannot tell how far starts stray: below what `noise` found, it is a tie."""
    small = smallest is not None and abs(figure.relative or 0.0) <= smallest
    if not small or figure.name != "tps" or not figure.exceeds_noise:
        return figure
    return figure.model_copy(update={"exceeds_noise": False, "verdict": "tie"})


def _cells(a: _Run, b: _Run, smallest: float | None) -> list[CellDifferenceDocument]:
    if a.answer.model != b.answer.model:
        return []
    read = _reader("tps")
    spread = stats.pooled_spread(read(cell.samples) for run in (a, b) for cell in run.cells)
    found = []
    for cell in a.cells:
        other = next((entry for entry in b.cells if entry.knobs == cell.knobs), None)
        if other is not None:
            tps = _figure("tps", "tok/s", "higher", read(cell.samples), read(other.samples), spread)
            found.append(CellDifferenceDocument(knobs=cell.knobs, tps=_seen(tps, smallest)))
    return found


def _reader(name: str) -> Callable[[Sequence[SampleDocument]], list[float]]:
    """Reads a field of the complete samples; only positive values can be set in relation."""

    def read(samples: Sequence[SampleDocument]) -> list[float]:
        values = [getattr(sample, name) for sample in samples if sample.error is None]
        return [value for value in values if value is not None and value > 0]

    return read


def _figure(
    name: str,
    unit: str,
    better: Literal["higher", "lower"],
    a: Sequence[float],
    b: Sequence[float],
    spread: stats.Spread,
) -> FigureDocument:
    found = stats.ratio(a, b, spread, CONFIDENCE) if a and b else None
    low, high = (found and found.interval) or (None, None)
    differs = found.differs if found is not None else None
    return FigureDocument(
        name=name,
        unit=unit,
        better=better,
        a=stats.median(a) if a else None,
        b=stats.median(b) if b else None,
        count_a=len(a),
        count_b=len(b),
        relative=found.relative if found is not None else None,
        low=low,
        high=high,
        noise=spread.relative if spread.freedom else None,
        degrees_of_freedom=spread.freedom,
        exceeds_noise=differs,
        verdict=_verdict(differs, found, better),
    )


def _verdict(
    differs: bool | None, found: stats.Ratio | None, better: Literal["higher", "lower"]
) -> Verdict:
    if differs is None or found is None:
        return "cannot tell"
    if not differs:
        return "tie"
    return "b is better" if (found.relative > 0) == (better == "higher") else "a is better"
