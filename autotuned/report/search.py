"""The knobs of a run's cells, and what a search of them has found: effects, order, what it never came to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from autotuned.core.search import effects
from autotuned.shared.knobs import TABLE, flat, own, shown
from autotuned.shared.text import rate, share, short, span

KNOB_NAMES = {knob.published: knob.name for knob in TABLE}
"""Knobs, from the names of the configuration file to those of the flags."""


def named(knobs: Mapping[str, Any]) -> str:
    """The values of all knobs, the server's own after the three."""
    return " / ".join(map(shown, flat(knobs).values()))


def knob_heading(document: Mapping[str, Any]) -> str:
    """The names of the knobs, in the order in which `named` has their values."""
    three = [knob.name if knob.optional else knob.label for knob in TABLE]
    return " / ".join(
        [*three, *(own(document["stage2"][0]["knobs"]) if document["stage2"] else ())]
    )


def search(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a search of the server's own knobs has found: effects, its order, what it never came to."""
    cells, searched = document["stage2"], document.get("search")
    if searched is None or not cells:
        return None
    figures = [cell["tps_median"] if cell["fits"] else None for cell in cells]
    found = effects([(flat(cell["knobs"]), tps) for cell, tps in zip(cells, figures, strict=True)])
    best = itertools.accumulate((tps or 0.0 for tps in figures), max)
    dropped = f", {searched['left_out']} left out" if searched["left_out"] else ""
    return {
        "tried": f"{len(cells)} of {searched['cells']} cells tried{dropped}.",
        "effects": [
            [
                KNOB_NAMES.get(effect.name, effect.name),
                share(effect.share),
                ", ".join(f"{shown(value)}: {rate(median)}" for value, median in effect.medians),
            ]
            for effect in found
        ],
        "order": [
            [
                str(step),
                named(cell["knobs"]),
                "failed" if tps is None else rate(tps),
                rate(top or None),
            ]
            for step, (cell, tps, top) in enumerate(zip(cells, figures, best, strict=True), start=1)
        ],
        "untried": [named(knobs) for knobs in searched.get("untried", ())],
    }


def profile(each: Mapping[str, Any]) -> tuple[str, ...]:
    """A row for one target context."""
    tokens, answer = f"{each['target_context']:,}", each["recommendation"]
    if answer is None:
        return (tokens, each["reason"] or "nothing", "", "", "")
    figures = rate(answer["tps_median"]), span(answer["ttft_p95_ms"])
    return (tokens, short(answer["model"]), named(answer["knobs"]), *figures)


def answered(question: Mapping[str, Any]) -> dict[str, Any]:
    """A question as a table: a row for each answer, the settings first."""
    rows = [
        (
            named(answer["knobs"]) + (", again" if answer["round"] > 1 else ""),
            "solved"
            if all(answer["solved"])
            else f"{sum(answer['solved'])} of {len(answer['solved'])}",
            answer["text"] if answer["text"] is not None else "the request failed",
        )
        for answer in question["answers"]
    ]
    return {"task": question["task"], "prompt": question["prompt"], "rows": rows}
