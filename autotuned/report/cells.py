"""The cells of a run: dots for every replicate, a table of all figures, and which cells really differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotuned.core import stats
from autotuned.core.compare import CONFIDENCE
from autotuned.report.charts import Strip, strips
from autotuned.report.figures import DASH, knob, knobs, memory, percent, rate, share, span, tick
from autotuned.report.markup import NOTHING, Markup, lines, table, tag

MOST = 3000
"""Requests that are shown one by one: a page of more is no longer read, and must pass through the socket."""


def section(document: Mapping[str, Any], varying: Mapping[str, bool]) -> Markup:
    """Charts and table of the cells; nothing where none was measured."""
    cells = document["stage2"]
    if not cells:
        return NOTHING
    best = best_index(document)
    stands = _stands(document.get("noise", {}))
    return tag(
        "section",
        tag("h2", "The settings, measured"),
        tag("p", _introduced(document, varying)),
        tag(
            "div",
            _chart("tps", "Tokens per second", "more is better", cells, best, varying),
            _chart("ttft_ms", "Time to first token", "less is better", cells, best, varying),
            class_="pair",
        ),
        _table(cells, best),
        _failures(cells),
        _requests(cells),
        tag("p", _noise(cells), class_="note"),
        tag("p", stands, class_="note") if stands else NOTHING,
    )


def varying_knobs(cells: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Which knobs take more than one value: the others need not be said again at each cell."""
    names = cells[0]["knobs"] if cells else ()
    return {name: len({cell["knobs"][name] for cell in cells}) > 1 for name in names}


def best_index(document: Mapping[str, Any]) -> int | None:
    """The cell that is recommended."""
    answer, found = document["recommendation"], None
    for index, cell in enumerate(document["stage2"]):
        if answer is not None and cell["fits"] and cell["knobs"] == answer["knobs"]:
            found = index
            if cell["tps_median"] == answer["tps_median"]:
                break
    return found


def _introduced(document: Mapping[str, Any], varying: Mapping[str, bool]) -> str:
    cells = document["stage2"]
    count = "One cell" if len(cells) == 1 else f"{len(cells)} cells"
    fixed = {name: value for name, value in cells[0]["knobs"].items() if not varying[name]}
    shared = f" All with {knobs(fixed)}." if fixed and len(cells) > 1 else ""
    ways = f" {knobs(cells[0]['knobs'])}." if len(cells) == 1 else ""
    return (
        f"{count} of the chosen model, up to {document['inputs']['stage2_replicates']} requests each.{ways}{shared} "
        "A dot is one request, the upright stroke the median."
    )


def _chart(
    field: str,
    title: str,
    better: str,
    cells: Sequence[Mapping[str, Any]],
    best: int | None,
    varying: Mapping[str, bool],
) -> Markup:
    show = rate if field == "tps" else span
    rows = []
    for index, cell in enumerate(cells):
        values = _values(cell, field)
        label = knobs(cell["knobs"], varying) or knobs(cell["knobs"])
        if index == best:
            label += " \N{BLACK STAR}"
        middle = stats.median(values) if values and cell["fits"] else None
        dots = _thinned(values, _most(cells))
        rows.append(Strip(label, dots, middle, index == best, not cell["fits"]))
    medians = ", ".join(
        f"{row.label}: {'failed' if row.failed else DASH if row.median is None else show(row.median)}"
        for row in rows
    )
    name = field.replace("_", "-")
    scale = tick if field == "tps" else span
    drawn = strips(name, f"{title} of each cell", medians, rows, show, scale)
    if not drawn:
        return NOTHING
    caption = tag("figcaption", tag("b", title), f" \N{MIDDLE DOT} {better}")
    return tag("figure", caption, drawn)


def _table(cells: Sequence[Mapping[str, Any]], best: int | None) -> Markup:
    against = _against(cells, best)
    rows = [
        [
            _named(cell),
            "failed" if not cell["fits"] else "best" if index == best else "passed",
            rate(cell["tps_median"]),
            against[index],
            span(cell["ttft_p95_ms"]),
            rate(cell["decode_tps"]),
            rate(cell["prefill_tps"]),
            span(cell["load_ms"]),
            memory(cell.get("peak_rss_bytes")),
        ]
        for index, cell in enumerate(cells)
    ]
    heading = [
        "kv_bits / batch / context",
        "result",
        "tok/s",
        "against the best",
        "TTFT p95",
        "decode tok/s",
        "prefill tok/s",
        "load",
        "memory",
    ]
    return table("Every cell with its figures", heading, rows, numbers=range(2, 9), marked=best)


def _named(cell: Mapping[str, Any]) -> str:
    return " / ".join(knob(value) for value in cell["knobs"].values())


def _failures(cells: Sequence[Mapping[str, Any]]) -> Markup:
    said = [
        tag("li", tag("b", f"{_named(cell)} failed: "), cell["reason"])
        for cell in cells
        if cell["reason"]
    ]
    return tag("ul", lines(*said), class_="failures") if said else NOTHING


def _most(cells: Sequence[Mapping[str, Any]]) -> int:
    """How many requests of a cell are shown one by one."""
    return max(20, MOST // len(cells))


def _thinned(values: Sequence[float], most: int) -> Sequence[float]:
    """Evenly fewer values, the smallest and the largest still among them."""
    if len(values) <= most:
        return values
    return [*values[:: math.ceil(len(values) / most)], min(values), max(values)]


def _requests(cells: Sequence[Mapping[str, Any]]) -> Markup:
    """Every request, also those that failed: the dots of the charts as figures."""
    most, count = _most(cells), sum(len(cell["samples"]) for cell in cells)
    rows = [
        [
            _named(cell),
            str(number),
            rate(sample["tps"]),
            span(sample["ttft_ms"]),
            rate(sample["decode_tps"]),
            DASH if sample["prompt_tokens"] is None else str(sample["prompt_tokens"]),
            DASH if sample["completion_tokens"] is None else str(sample["completion_tokens"]),
            sample["error"] or "; ".join(sample["remarks"]),
        ]
        for cell in cells
        for number, sample in enumerate(cell["samples"][:most], start=1)
    ]
    if not rows:
        return NOTHING
    heading = ["kv_bits / batch / context", "request", "tok/s", "TTFT", "decode tok/s"]
    heading += ["prompt tokens", "answer tokens", "remarks"]
    if len(rows) < count:
        said = f"The first {most} requests of each cell, {len(rows)} of {count}"
        return tag("details", tag("summary", said), table(said, heading, rows, numbers=range(1, 7)))
    whole = table("Every request with its figures", heading, rows, numbers=range(1, 7))
    return tag("details", tag("summary", f"Every request ({count})"), whole)


def _against(cells: Sequence[Mapping[str, Any]], best: int | None) -> list[str]:
    """Each cell's median against the best's, with its interval; `tie` where that covers no difference."""
    spread = _spread(cells)
    reference = _values(cells[best], "tps") if best is not None else []
    said = []
    for index, cell in enumerate(cells):
        values = _values(cell, "tps")
        if index == best or not reference or not values or not cell["fits"]:
            said.append(DASH)
            continue
        found = stats.ratio(reference, values, spread, CONFIDENCE)
        words = percent(found.relative)
        if found.interval is not None:
            words += f" ({percent(found.interval[0])} to {percent(found.interval[1])})"
        said.append(f"{words}, tie" if found.differs is False else words)
    return said


STANDS = {
    "clear": "The winner stands clear of its runner-up",
    "tie": "The winner and its runner-up are a tie",
    "runner-up is faster": "The runner-up is the faster one",
    "cannot tell": "Whether the winner stands clear of its runner-up is not known",
}


def _stands(noise: Mapping[str, Any]) -> str:
    """Whether the winner stands clear, by a measurement of the noise where there is one."""
    measured = noise.get("measured")
    lead = (measured or noise).get("lead")
    if lead is None:
        return ""
    said = f"{STANDS[lead['verdict']]}: {percent(lead['relative'])}"
    if lead["low"] is not None:
        said += f" ({percent(lead['low'])} to {percent(lead['high'])} at 90%)"
    if measured is None:
        return f"{said}, by the requests of this run."
    return (
        f"{said}, by {measured['pairs']} pairs of further starts; starts of one cell stray by "
        f"{share(measured['start_spread'] or 0.0)}."
    )


def _noise(cells: Sequence[Mapping[str, Any]]) -> str:
    spread = _spread(cells)
    if not spread.freedom:
        return "One request a cell: how much the figures stray is not known, so no two cells can be told apart."
    degrees = "1 degree" if spread.freedom == 1 else f"{spread.freedom} degrees"
    return (
        f"Noise: one request strays by {share(spread.relative)} within a cell, pooled over all cells "
        f"({degrees} of freedom). Intervals are at {CONFIDENCE:.0%}, by Student's t; a tie is a difference that the "
        "noise explains."
    )


def _spread(cells: Sequence[Mapping[str, Any]]) -> stats.Spread:
    return stats.pooled_spread(_values(cell, "tps") for cell in cells if cell["fits"])


def _values(cell: Mapping[str, Any], field: str) -> list[float]:
    """The figures of the complete requests."""
    values = [sample[field] for sample in cell["samples"] if sample["error"] is None]
    return [value for value in values if value is not None and value > 0]
