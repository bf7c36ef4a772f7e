"""How far an answer can be trusted: what was done to be sure of it, and how the recipe has served over time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from autotuned.report.charts import DotAxis, dot_axis
from autotuned.shared.text import rate, signed_share, span

HEIGHT, EDGE = 150.0, 3.0
"""Pixels of the chart's height, and percent of its width that stay free at each side."""
UPDATED = {"os_version": "system", "binary_version": "server"}
"""What may have been updated between two entries: the fields that tell, and what they are of."""


def sentences(document: Mapping[str, Any]) -> list[str]:
    """What was done to be sure of the answer, a sentence each."""
    sentences = []
    if meeting := document.get("confirmation"):
        who = "the defaults" if meeting["against"] == "defaults" else "what the live server runs"
        outcome = {"better": "is faster", "tie": "is no faster", "worse": "is slower"}
        sentences.append(
            f"Started again in turns with {who}, the winner {outcome[meeting['verdict']]} "
            f"({signed_share(meeting['difference'])})."
        )
    for cell in (document.get("quality") or {}).get("cells", ()):
        if cell["knobs"] == document["recommendation"]["knobs"]:
            lost = f": {', '.join(cell['lost'])} lost" if cell["lost"] else ""
            sentences.append(f"Its answers beside those without loss: {cell['verdict']}{lost}.")
    return sentences


def over_time(
    document: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The chart and its table for the recipe of a run; None where it was measured only once."""
    answer = document["recommendation"]
    if answer is None:
        return None
    same = ("model", "knobs", "target_context")
    entries = [
        each
        for each in reversed(history)
        if all(each[name] == answer[name] for name in same) and each["tps_median"] is not None
    ]
    if len(entries) < 2:
        return None
    axis = dot_axis([each["tps_median"] for each in entries])
    step = (100 - 2 * EDGE) / (len(entries) - 1)
    dots = [
        {
            "x": f"{EDGE + step * place:.2f}%",
            "y": _y(axis, each["tps_median"]),
            "words": f"{each['at'][:10]}: {rate(each['tps_median'])} tok/s, {_verdict(each)}",
        }
        for place, each in enumerate(entries)
    ]
    changes = [_changed(before, after) for before, after in itertools.pairwise(entries)]
    return {
        "dots": dots,
        "pieces": list(itertools.pairwise(dots)),
        "updates": [
            {"x": f"{EDGE + step * (place + 0.5):.2f}%", "words": words}
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
                rate(each["tps_median"]),
                span(each["ttft_p95_ms"]),
                words,
            ]
            for each, words in zip(entries, ["", *changes], strict=True)
        ],
    }


def _y(axis: DotAxis, value: float) -> str:
    """Where a value stands, from the top."""
    return f"{HEIGHT * (1 - (value - axis.low) / (axis.high - axis.low)):.1f}"


def _verdict(entry: Mapping[str, Any]) -> str:
    checked = entry["check"]
    return "tune" if checked is None else f"check: {checked['verdict']}"


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What was updated between two entries: `system macOS 26.3 -> macOS 26.4`."""
    return ", ".join(
        f"{name} {before[field]} -> {after[field]}"
        for field, name in UPDATED.items()
        if before[field] != after[field]
    )
