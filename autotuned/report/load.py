"""Two calibrations as charts: every point a dot over a common axis, the ceiling as a line, a table beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotuned.report.charts import dot_axis
from autotuned.shared.text import rate, span

STAR = " \N{BLACK STAR}"


def calibrations(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One section for each calibration that has points: its sentence, charts and table."""
    found = document.get("calibration") or {}
    made = []
    context, several = found.get("context"), found.get("concurrency")
    if context and context["points"]:
        marks = {context["answer"]: STAR}
        answer = context["answer"]
        made.append(
            {
                "title": "How long a context",
                "said": f"The largest useful context is {answer:,} tokens."
                if answer
                else "No context was found.",
                "charts": [_ttft(context, "context", marks, "calibrated-context")],
                "heading": ["tokens", "TTFT p95", "tok/s", "result"],
                "rows": _rows(context["points"], "context"),
            }
        )
    if several and several["points"]:
        best, largest = several["recommended"], several["largest"]
        marks = {largest: " (largest)", best: STAR if best != largest else f"{STAR} (largest)"}
        made.append(
            {
                "title": "How many at once",
                "said": f"{best} at once have nearly the best throughput; at most {largest} pass."
                if best
                else "No number of requests at once passes.",
                "charts": [
                    _chart(several, "concurrency", "tps", marks, "calibrated-tps"),
                    _ttft(several, "concurrency", marks, "calibrated-ttft"),
                ],
                "heading": ["at once", "TTFT p95", "tok/s in all", "result"],
                "rows": _rows(several["points"], "concurrency"),
            }
        )
    for section in made:
        section["charts"] = [chart for chart in section["charts"] if chart is not None]
    return made


def _ttft(
    found: Mapping[str, Any], of: str, marks: Mapping[int | None, str], name: str
) -> dict[str, Any] | None:
    chart = _chart(found, of, "ttft_p95_ms", marks, name)
    if chart is not None:
        values = [value for row in chart["strips"] for value in row["dots"]]
        chart["axis"], chart["line"] = dot_axis([*values, found["ceiling_ms"]]), found["ceiling_ms"]
        chart["better"] = f"the line is the ceiling, {span(found['ceiling_ms'])}"
    return chart


def _chart(
    found: Mapping[str, Any], of: str, field: str, marks: Mapping[int | None, str], name: str
) -> dict[str, Any] | None:
    """A row for each value, smallest first, with a dot for each of its points; None without any figure."""
    points: Sequence[Mapping[str, Any]] = found["points"]
    show: Callable[[float | None], str] = rate if field == "tps" else span
    strips: list[dict[str, Any]] = []
    for value in sorted({point[of] for point in points}):
        own = [point for point in points if point[of] == value]
        dots = [point[field] for point in own if point[field] is not None]
        passes = all(point["passes"] for point in own)
        strips.append(
            {
                "label": f"{value:,}{marks.get(value, '')}",
                "dots": dots,
                "median": None,
                "value": show(dots[-1]) if dots else "failed",
                "best": STAR in marks.get(value, ""),
                "failed": not passes,
            }
        )
    figures = [figure for strip in strips for figure in strip["dots"]]
    if not figures:
        return None
    title = "Tokens per second in all" if field == "tps" else "Time to first token, p95"
    return {
        "name": name,
        "title": title,
        "described": f"{title} of each {of}",
        "better": "more is better",
        "summary": ", ".join(f"{strip['label']}: {strip['value']}" for strip in strips),
        "strips": strips,
        "axis": dot_axis(figures),
        "show": show,
        "scale": "{:,.10g}".format if field == "tps" else span,
    }


def _rows(points: Sequence[Mapping[str, Any]], of: str) -> list[list[str]]:
    return [
        [
            f"{point[of]:,}",
            span(point["ttft_p95_ms"]),
            rate(point["tps"]),
            "passed" if point["passes"] else point["reason"] or "failed",
        ]
        for point in points
    ]
