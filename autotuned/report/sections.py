"""The parts of the page that only some runs have: calibrations, a search, several target contexts, answers, the
recipe over time; and how far the answer can be trusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autotuned.core.search import effects
from autotuned.documents.compare import PastDocument
from autotuned.documents.result import (
    AnsweredTask,
    CalibrationPoint,
    ProfileDocument,
    ResultDocument,
)
from autotuned.report.charts import Axis, Chart, Strip, dot_axis, dots, percent
from autotuned.shared.knobs import TABLE, flat, own, shown, winner
from autotuned.shared.text import rate, share, short, signed_share, span

STAR = " \N{BLACK STAR}"
KNOB_NAMES = {knob.published: knob.name for knob in TABLE}
"""Knobs, from the names of the configuration file to those of the flags."""
HEIGHT, EDGE = 150.0, 3.0
"""Pixels of the height of the chart over time, and percent of its width that stay free at each side."""
UPDATED = {"os_version": "system", "binary_version": "server"}
"""What may have been updated between two entries: the fields that tell, and what they are of."""

Points = Sequence[tuple[int, CalibrationPoint]]
"""What was measured, each with the length of its context, or with how many requests at once."""


def calibrations(document: ResultDocument) -> list[dict[str, object]]:
    """One section for each calibration that has points: its sentence, charts and table."""
    found = document.get("calibration")
    context, several = (found["context"], found["concurrency"]) if found else (None, None)
    made: list[dict[str, object]] = []
    if context and context["points"]:
        answer, ceiling = context["answer"], context["ceiling_ms"]
        lengths: Points = [(point["context"], point) for point in context["points"]]
        chart = _ttft("calibrated-context", "context", lengths, {answer: STAR}, ceiling)
        said = (
            f"The largest useful context is {answer:,} tokens."
            if answer
            else "No context was found."
        )
        heading = ["tokens", "TTFT p95", "tok/s", "result"]
        made.append(_calibration("How long a context", said, [chart], heading, lengths))
    if several and several["points"]:
        best, largest, ceiling = several["recommended"], several["largest"], several["ceiling_ms"]
        marks = {largest: " (largest)", best: STAR if best != largest else f"{STAR} (largest)"}
        streams: Points = [(point["concurrency"], point) for point in several["points"]]
        strips = _strips(
            [(value, point["tps"], point["passes"]) for value, point in streams], marks, rate
        )
        in_all = "Tokens per second in all"
        charts = [
            dots("calibrated-tps", in_all, "concurrency", strips, rate, "more is better"),
            _ttft("calibrated-ttft", "concurrency", streams, marks, ceiling),
        ]
        said = "No number of requests at once passes."
        if best:
            said = f"{best} at once have nearly the best throughput; at most {largest} pass."
        heading = ["at once", "TTFT p95", "tok/s in all", "result"]
        made.append(_calibration("How many at once", said, charts, heading, streams))
    return made


def _calibration(
    title: str, said: str, charts: Sequence[Chart | None], heading: list[str], points: Points
) -> dict[str, object]:
    rows = [
        [
            f"{value:,}",
            span(point["ttft_p95_ms"]),
            rate(point["tps"]),
            "passed" if point["passes"] else point["reason"] or "failed",
        ]
        for value, point in points
    ]
    drawn = [chart for chart in charts if chart]
    return {"title": title, "said": said, "charts": drawn, "heading": heading, "rows": rows}


def _ttft(
    name: str, of: str, points: Points, marks: Mapping[int | None, str], ceiling_ms: int
) -> Chart | None:
    times = [(value, point["ttft_p95_ms"], point["passes"]) for value, point in points]
    better = f"the line is the ceiling, {span(ceiling_ms)}"
    strips = _strips(times, marks, span)
    return dots(name, "Time to first token, p95", of, strips, span, better, ceiling_ms)


def _strips(
    points: Sequence[tuple[int, float | None, bool]],
    marks: Mapping[int | None, str],
    show: Callable[[float | None], str],
) -> list[Strip]:
    """A row for each value, smallest first, with a dot for each of its points: value, figure, whether it passes."""
    strips = []
    for value in sorted({point[0] for point in points}):
        own = [point for point in points if point[0] == value]
        figures = [figure for _, figure, _ in own if figure is not None]
        mark, failed = marks.get(value, ""), not all(passes for _, _, passes in own)
        words = show(figures[-1]) if figures else "failed"
        strips.append(Strip(f"{value:,}{mark}", figures, words, STAR in mark, failed))
    return strips


def named(knobs: Mapping[str, object]) -> str:
    """The values of all knobs, the server's own after the three."""
    return " / ".join(map(shown, flat(knobs).values()))


def knob_heading(document: ResultDocument) -> str:
    """The names of the knobs, in the order in which `named` has their values."""
    three = [knob.name if knob.optional else knob.label for knob in TABLE]
    return " / ".join(
        [*three, *(own(document["stage2"][0]["knobs"]) if document["stage2"] else ())]
    )


def search(document: ResultDocument) -> dict[str, object] | None:
    """What a search of the server's own knobs has found: effects, its order, what it never came to."""
    cells, searched = document["stage2"], document.get("search")
    if searched is None or not cells:
        return None
    figures = [cell["tps_median"] if cell["fits"] else None for cell in cells]
    found = effects([(flat(cell["knobs"]), tps) for cell, tps in zip(cells, figures, strict=True)])
    best = itertools.accumulate((tps or 0.0 for tps in figures), max)
    dropped = f", {searched['left_out']} left out" if searched["left_out"] else ""
    told = [
        (effect, ", ".join(f"{shown(value)}: {rate(median)}" for value, median in effect.medians))
        for effect in found
    ]
    steps = enumerate(zip(cells, figures, best, strict=True), start=1)
    return {
        "tried": f"{len(cells)} of {searched['cells']} cells tried{dropped}.",
        "effects": [
            [KNOB_NAMES.get(effect.name, effect.name), share(effect.share), medians]
            for effect, medians in told
        ],
        "order": [
            [
                str(step),
                named(cell["knobs"]),
                "failed" if tps is None else rate(tps),
                rate(top or None),
            ]
            for step, (cell, tps, top) in steps
        ],
        "untried": [named(knobs) for knobs in searched.get("untried", ())],
    }


def profile(each: ProfileDocument) -> tuple[str, ...]:
    """A row for one target context."""
    tokens, answer = f"{each['target_context']:,}", each["recommendation"]
    if answer is None:
        return (tokens, each["reason"] or "nothing", "", "", "")
    figures = rate(answer["tps_median"]), span(answer["ttft_p95_ms"])
    return (tokens, short(answer["model"]), named(answer["knobs"]), *figures)


def answered(question: AnsweredTask) -> dict[str, object]:
    """A question as a table: a row for each answer, the settings first."""
    rows = []
    for answer in question["answers"]:
        solved, tasks = sum(answer["solved"]), len(answer["solved"])
        name = named(answer["knobs"]) + (", again" if answer["round"] > 1 else "")
        text = "the request failed" if answer["text"] is None else answer["text"]
        rows.append((name, "solved" if solved == tasks else f"{solved} of {tasks}", text))
    return {"task": question["task"], "prompt": question["prompt"], "rows": rows}


def sentences(document: ResultDocument) -> list[str]:
    """What was done to be sure of the answer, a sentence each."""
    sentences = []
    if meeting := document.get("confirmation"):
        who = "the defaults" if meeting["against"] == "defaults" else "what the live server runs"
        outcome = {"better": "is faster", "tie": "is no faster", "worse": "is slower"}
        sentences.append(
            f"Started again in turns with {who}, the winner {outcome[meeting['verdict']]} "
            f"({signed_share(meeting['difference'])})."
        )
    best, quality = winner(document) or document["recommendation"], document.get("quality")
    for cell in quality["cells"] if quality else ():
        if best is not None and cell["knobs"] == best["knobs"]:
            lost = f": {', '.join(cell['lost'])} lost" if cell["lost"] else ""
            sentences.append(f"Its answers beside those without loss: {cell['verdict']}{lost}.")
    return sentences


def over_time(document: ResultDocument, history: Sequence[PastDocument]) -> dict[str, Any] | None:
    """The chart and its table for the recipe of a run; None where it was measured only once."""
    answer = document["recommendation"]
    if answer is None:
        return None
    recipe = (answer["model"], answer["knobs"], answer["target_context"])
    entries = [
        (each, each["tps_median"])
        for each in reversed(history)
        if (each["model"], each["knobs"], each["target_context"]) == recipe
        and each["tps_median"] is not None
    ]
    if len(entries) < 2:
        return None
    axis = dot_axis([tps for _, tps in entries])
    step = (100 - 2 * EDGE) / (len(entries) - 1)
    dots = [
        {
            "x": percent(EDGE + step * place),
            "y": _y(axis, tps),
            "words": f"{each['at'][:10]}: {rate(tps)} tok/s, {_verdict(each)}",
        }
        for place, (each, tps) in enumerate(entries)
    ]
    changes = [_changed(before, after) for (before, _), (after, _) in itertools.pairwise(entries)]
    return {
        "dots": dots,
        "pieces": list(itertools.pairwise(dots)),
        "updates": [
            {"x": percent(EDGE + step * (place + 0.5)), "words": words}
            for place, words in enumerate(changes)
            if words
        ],
        "ticks": [{"y": _y(axis, tick), "words": rate(tick)} for tick in axis.ticks],
        "height": HEIGHT,
        "heading": ["measured", "as", "tok/s", "TTFT p95", "updated since the one before"],
        "rows": [
            [
                each["at"][:16].replace("T", " "),
                _verdict(each),
                rate(tps),
                span(each["ttft_p95_ms"]),
                words,
            ]
            for (each, tps), words in zip(entries, ["", *changes], strict=True)
        ],
    }


def _y(axis: Axis, value: float) -> str:
    """Where a value stands, from the top."""
    return f"{HEIGHT * (1 - (value - axis.low) / (axis.high - axis.low)):.1f}"


def _verdict(entry: PastDocument) -> str:
    checked = entry["check"]
    return "tune" if checked is None else f"check: {checked['verdict']}"


def _changed(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """What was updated between two entries: `system macOS 26.3 -> macOS 26.4`."""
    return ", ".join(
        f"{name} {before[field]} -> {after[field]}"
        for field, name in UPDATED.items()
        if before[field] != after[field]
    )
