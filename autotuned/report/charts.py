"""Charts as inline SVG that fill the width they get: places across are percentages, heights are pixels.

So text keeps its size on a phone and in print. Each chart says in words what it shows (`title`,
`desc`); the page puts a table with the same figures beside it. Must not know documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotuned.report.figures import DASH
from autotuned.report.markup import Markup, lines, tag

EDGE = 2.5
"""Percent of the width that stay free at each side, so that nothing is cut off."""
SECOND, MINUTE, HOUR = 1_000.0, 60_000.0, 3_600_000.0
TIME_STEPS = (
    *(factor * SECOND for factor in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)),
    *(factor * MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * HOUR for factor in (1, 2, 4, 8)),
)
"""Steps of an axis of time in milliseconds: sixty is a round number there."""
ROW, TRACK, AXIS = 46, 30, 26
BAR_ROW, BAR = 44, 16


@dataclass(frozen=True, slots=True)
class Strip:
    """One row of dots: what it is called, its values, and their median where it counts. `best` is set off."""

    label: str
    values: Sequence[float]
    median: float | None
    best: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar from `start` on, in the bar's own unit; `kind` is its colour's name."""

    kind: str
    start: float
    length: float
    said: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a timeline."""

    label: str
    value: str
    parts: Sequence[Part]


def strips(
    name: str,
    title: str,
    said: str,
    rows: Sequence[Strip],
    show: Callable[[float], str],
    scale: Callable[[float], str],
) -> Markup:
    """A row of dots for each of `rows` over one common axis; `name` is unique on the page.

    `show` writes a value, `scale` a round one at the axis. Without any value there is no chart.
    """
    values = [value for row in rows for value in row.values]
    if not values:
        return Markup("")
    low, high = _domain(values)

    def across(value: float) -> str:
        return _percent(EDGE + (100 - 2 * EDGE) * (value - low) / (high - low))

    bottom = len(rows) * ROW + 4
    ticks = []
    for tick in _round(low, high):
        place = across(tick)
        ticks.append(tag("line", x1=place, x2=place, y1=0, y2=bottom, class_="grid"))
        ticks.append(tag("text", scale(tick), x=place, y=bottom + 17, class_="tick"))
    drawn = [_strip(row, index * ROW, across, show) for index, row in enumerate(rows)]
    return _svg(name, title, said, bottom + AXIS, [*ticks, *drawn])


def _strip(
    row: Strip, top: int, across: Callable[[float], str], show: Callable[[float], str]
) -> Markup:
    style = " ".join(
        word for word, on in (("strip", True), ("best", row.best), ("failed", row.failed)) if on
    )
    value = "failed" if row.failed else DASH if row.median is None else show(row.median)
    parts = [
        tag("text", row.label, x=0, y=top + 14, class_="label"),
        tag("text", value, x="100%", y=top + 14, class_="value"),
        tag("line", x1=0, x2="100%", y1=top + TRACK, y2=top + TRACK, class_="track"),
    ]
    if len(row.values) > 1:
        ends = across(min(row.values)), across(max(row.values))
        parts.append(
            tag("line", x1=ends[0], x2=ends[1], y1=top + TRACK, y2=top + TRACK, class_="range")
        )
    for value_ in row.values:
        told = tag("title", show(value_))
        parts.append(tag("circle", told, cx=across(value_), cy=top + TRACK, r=5, class_="dot"))
    if row.median is not None and not row.failed:
        place = across(row.median)
        parts.append(
            tag("line", x1=place, x2=place, y1=top + TRACK - 9, y2=top + TRACK + 9, class_="median")
        )
    return tag("g", *parts, class_=style)


def bars(
    name: str,
    title: str,
    said: str,
    rows: Sequence[Bar],
    whole: float,
    show: Callable[[float], str],
) -> Markup:
    """One bar a row over a common axis from 0 to `whole`."""
    ticks = []
    bottom = len(rows) * BAR_ROW + 4
    for tick in _multiples(0, whole, _time_step(whole / 4)):
        place = _percent(100 * tick / whole)
        edge = "first" if tick == 0 else "last" if tick > 0.94 * whole else ""
        ticks.append(tag("line", x1=place, x2=place, y1=0, y2=bottom, class_="grid"))
        ticks.append(
            tag(
                "text",
                show(tick) if tick else "0",
                x=place,
                y=bottom + 17,
                class_=f"tick {edge}".strip(),
            )
        )
    drawn = []
    for index, row in enumerate(rows):
        top = index * BAR_ROW
        drawn.append(tag("text", row.label, x=0, y=top + 14, class_="label"))
        drawn.append(tag("text", row.value, x="100%", y=top + 14, class_="value"))
        drawn.append(tag("rect", x=0, y=top + 20, width="100%", height=BAR, rx=3, class_="trough"))
        drawn += [_part(part, top + 20, whole) for part in row.parts]
    return _svg(name, title, said, bottom + AXIS, [*ticks, *drawn])


def _part(part: Part, top: int, whole: float) -> Markup:
    start, width = 100 * part.start / whole, 100 * part.length / whole
    return tag(
        "rect",
        tag("title", part.said),
        x=_percent(min(start, 99.7)),
        y=top,
        width=_percent(max(0.3, min(width, 100 - start))),
        height=BAR,
        class_=f"part {part.kind}",
    )


def _svg(name: str, title: str, said: str, height: int, drawn: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        "\n",
        lines(
            tag("title", title, id=f"{name}-title"), tag("desc", said, id=f"{name}-desc"), *drawn
        ),
        "\n",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
        width="100%",
        height=height,
    )


def _domain(values: Sequence[float]) -> tuple[float, float]:
    """Around the values with some air, never narrower than 4 % of them: equal values stay close together."""
    low, high = min(values), max(values)
    air = max((high - low) * 0.12, abs(high) * 0.02, 1e-9)
    return max(0.0, low - air) if low >= 0 else low - air, high + air


def _round(low: float, high: float) -> list[float]:
    """Some three to six round values within the domain."""
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    return _multiples(low, high, step)


def _time_step(raw: float) -> float:
    return next((step for step in TIME_STEPS if step >= raw), math.ceil(raw / HOUR) * HOUR)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _percent(value: float) -> str:
    return f"{value:.2f}%"
