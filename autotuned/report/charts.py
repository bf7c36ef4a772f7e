"""The charts: rows of dots, the timeline, and their axes, which say where a value stands in percent of the width.

The templates draw with them; they fill the width they get.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from autotuned.documents.result import ResultDocument
from autotuned.documents.trial import TrialDocument
from autotuned.shared.text import short, span

EDGE = 2.5
"""Percent of the width that stay free at each side of dots, so that nothing is cut off."""
SECOND, MINUTE, HOUR = 1_000.0, 60_000.0, 3_600_000.0
TIME_STEPS = (
    *(factor * SECOND for factor in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * HOUR for factor in (1, 2, 4, 8)),
)
"""Steps of an axis of time in milliseconds: sixty is a round number there."""


Chart = dict[str, object]
"""What a template draws."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar in milliseconds; `kind` is its colour's name."""

    kind: str
    start: float
    ms: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A trial, or what else takes time in a run; `spent` are milliseconds of its parts by their kind."""

    label: str
    value: str
    parts: Sequence[Part]
    spent: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values stand between two, with so many percent of the width free at each side."""

    low: float
    high: float
    ticks: Sequence[float]
    margin: float = 0.0

    def x(self, value: float) -> str:
        """Where a value stands."""
        share = (value - self.low) / (self.high - self.low)
        return percent(self.margin + (100 - 2 * self.margin) * share)

    def edge(self, tick: float) -> str:
        """Ticks at the edges are set inwards; with a margin none is near enough to one."""
        if self.margin:
            return ""
        return " first" if tick == 0 else " last" if tick > 0.94 * self.high else ""

    def part(self, part: Part) -> tuple[str, str]:
        """Place and width of a piece of a bar, never too small to be seen."""
        start, width = 100 * part.start / self.high, 100 * part.ms / self.high
        return percent(min(start, 99.7)), percent(max(0.3, min(width, 100 - start)))


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of dots, its value in words beside it, its median as an upright stroke."""

    label: str
    dots: Sequence[float]
    value: str
    best: bool
    failed: bool
    median: float | None = None


def dots(
    name: str,
    title: str,
    of: str,
    strips: Sequence[Strip],
    show: Callable[[float | None], str],
    better: str,
    line: float | None = None,
) -> Chart | None:
    """The chart of these rows, one for each `of`, with a limit as a line; None without any figure."""
    figures = [figure for strip in strips for figure in strip.dots]
    if not figures:
        return None
    return {
        "name": name,
        "title": title,
        "described": f"{title} of each {of}",
        "better": better,
        "summary": ", ".join(f"{strip.label}: {strip.value}" for strip in strips),
        "strips": strips,
        "axis": dot_axis(figures if line is None else [*figures, line]),
        "line": line,
        "show": show,
        "scale": span if show is span else "{:,.10g}".format,
    }


def dot_axis(values: Sequence[float]) -> Axis:
    """An axis for the values, of which there is at least one, with some three to six ticks.

    Around them is some air, and it is never narrower than 4 % of them: equal values stay close together.
    """
    low, high = min(values), max(values)
    air = max((high - low) * 0.12, abs(high) * 0.02, 1e-9)
    low, high = max(0.0, low - air) if low >= 0 else low - air, high + air
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    return Axis(low, high, _multiples(low, high, step), EDGE)


def time_axis(whole: float) -> Axis:
    """An axis for so many milliseconds."""
    raw = whole / 4
    step = next((step for step in TIME_STEPS if step >= raw), math.ceil(raw / HOUR) * HOUR)
    return Axis(0.0, whole, _multiples(0, whole, step))


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def percent(value: float) -> str:
    """A place across, as SVG has it."""
    return f"{value:.2f}%"


PARTS = {
    "pause": "cool-down before a cell",
    "prewarm": "download and check of the weights",
    "load": "from the start of the server until it serves",
    "warm": "one disposable request",
    "measure": "the measured requests",
    "stop": "until the server is gone and its port is free",
    "drain": "stopping the live server",
    "restore": "bringing the live server back",
}
"""The parts of a trial in their order, then those of a run with a drain: what they are."""
ASIDE = {
    "draining": ("drain", "the live server stops"),
    "restoring": ("restore", "the live server comes back"),
}
"""Phases of a run with a drain: the part that each is, and what the chart calls it."""
LONGEST, ELLIPSIS = 30, "\N{HORIZONTAL ELLIPSIS}"
"""Letters of a model's name in a chart, where no line can be broken."""
LEAST_MS = 0.5
"""A part that never took longer is not worth a word."""


def timeline(
    document: ResultDocument,
    trials: Sequence[TrialDocument],
    phases: Sequence[tuple[str, str]],
    knobs: Callable[[Mapping[str, object]], str],
) -> Chart | None:
    """Chart, legend and table of a run that tried something; None where no times are known."""
    began = _moment(document["started_at"])
    ends = [_moment(document["ended_at"]), *(_moment(trial["ended_at"]) for trial in trials)]
    known = [moment for moment in ends if moment is not None]
    if began is None or not known or not trials:
        return None
    whole = _ms(max(known), began)
    if whole <= 0:
        return None
    aside = _aside(phases, began)
    bars = [
        *(bar for bar in aside if bar.parts[0].kind == "drain"),
        *(_bar(trial, began, knobs) for trial in trials),
        *(bar for bar in aside if bar.parts[0].kind == "restore"),
    ]
    parts = [part for bar in bars for part in bar.parts]
    sums = {kind: sum(part.ms for part in parts if part.kind == kind) for kind in PARTS}
    sums = {kind: ms for kind, ms in sums.items() if ms >= LEAST_MS}
    rest = max(0.0, whole - sum(sums.values()))
    legend = [(kind, ms, PARTS[kind]) for kind, ms in sums.items()]
    told = ", ".join(f"{kind} {span(ms)}" for kind, ms in sums.items())
    columns = [kind for kind in sums if kind not in ("drain", "restore")]
    return {
        "name": "timeline",
        "described": "Every trial on the time axis of the run",
        "summary": f"{span(whole)} in all: {told}",
        "legend": [*legend, ("other", rest, "checks before and between, and bookkeeping")],
        "whole_ms": whole,
        "axis": time_axis(whole),
        "scale": lambda ms: span(ms) if ms else "0",
        "bars": bars,
        "heading": ["Trial", *columns, "in all"],
        "rows": [
            [bar.label, *(span(bar.spent.get(kind)) for kind in columns), bar.value] for bar in bars
        ],
    }


def _bar(
    trial: TrialDocument, began: datetime, knobs: Callable[[Mapping[str, object]], str]
) -> Bar:
    start, spent, parts = _moment(trial["started_at"]), _spent(trial), []
    at = 0.0 if start is None else max(0.0, _ms(start, began))
    for kind in PARTS:
        length = spent.get(kind) or 0.0
        if length >= LEAST_MS:
            parts.append(Part(kind, at, length))
            at += length
    if trial["knobs"] is None:
        name = short(trial["model"])
        label = f"probe of {name if len(name) <= LONGEST else name[: LONGEST - 1] + ELLIPSIS}"
    else:
        label = knobs(trial["knobs"])
    total = span(sum(value or 0.0 for value in spent.values()))
    return Bar(label or "the one cell", total, parts, spent)


def _aside(phases: Sequence[tuple[str, str]], began: datetime) -> list[Bar]:
    """The bars of drain and restore; none for a run that drained nothing."""
    bars: list[Bar] = []
    if not any(phase == "draining" for phase, _ in phases):
        return bars
    for (phase, entered), (_, left) in itertools.pairwise(phases):
        start, end = _moment(entered), _moment(left)
        if phase in ASIDE and start is not None and end is not None:
            kind, label = ASIDE[phase]
            part = Part(kind, max(0.0, _ms(start, began)), _ms(end, start))
            bars.append(Bar(label, span(part.ms), [part], {}))
    return bars


def _spent(trial: TrialDocument) -> dict[str, float | None]:
    """The parts in ms; of a trial from before they were kept, what else is known of them."""
    spent = {kind: (trial.get("spent") or {}).get(f"{kind}_ms") for kind in PARTS}
    if not any(value is not None for value in spent.values()):
        requests = sum(sample["total_ms"] or 0.0 for sample in trial["samples"])
        spent |= {"load": trial["load_ms"], "measure": requests or None}
    return spent


def _ms(end: datetime, start: datetime) -> float:
    return (end - start).total_seconds() * 1000


def _moment(value: object) -> datetime | None:
    """A moment with its zone; None for what a prototype may have written."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
