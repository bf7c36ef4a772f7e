"""Where the time of a run went: every trial's parts on one axis, and their sums."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from autotuned.report.charts import Bar, Part, bars
from autotuned.report.figures import DASH, knobs, short, span
from autotuned.report.markup import NOTHING, Markup, lines, table, tag

PARTS = {
    "pause_ms": ("pause", "cool-down before a cell"),
    "prewarm_ms": ("prewarm", "download and check of the weights"),
    "load_ms": ("load", "from the start of the server until it serves"),
    "warm_ms": ("warm", "one disposable request"),
    "measure_ms": ("measure", "the measured requests"),
    "stop_ms": ("stop", "until the server is gone and its port is free"),
}
"""The parts of a trial in their order: their name on the page, and what they are."""
LONGEST, ELLIPSIS = 30, "\N{HORIZONTAL ELLIPSIS}"
"""Letters of a model's name in a chart, where no line can be broken."""
LEAST_MS = 0.5
"""A part that never took longer is not worth a word."""


ASIDE = {
    "draining": ("drain", "stopping the live server", "the live server stops"),
    "restoring": ("restore", "bringing the live server back", "the live server comes back"),
}
"""Phases of a run with a drain: their name on the page, what they are, and what the chart calls them."""


def section(
    document: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    phases: Sequence[tuple[str, str]],
    varying: Mapping[str, bool],
) -> Markup:
    """The timeline of a run that tried something; nothing where no times are known."""
    began = _moment(document["started_at"])
    ends = [_moment(document["ended_at"]), *(_moment(trial["ended_at"]) for trial in trials)]
    known = [moment for moment in ends if moment is not None]
    if began is None or not known or not trials:
        return NOTHING
    whole = (max(known) - began).total_seconds() * 1000
    if whole <= 0:
        return NOTHING
    aside = _aside(phases, began)
    rows = [
        *(bar for phase, bar in aside if phase == "draining"),
        *(_row(trial, began, varying) for trial in trials),
        *(bar for phase, bar in aside if phase == "restoring"),
    ]
    spent = [_spent(trial) for trial in trials]
    sums = {
        (kind, means): sum(parts.get(name) or 0.0 for parts in spent)
        for name, (kind, means) in PARTS.items()
    }
    for phase, bar in aside:
        sums[ASIDE[phase][:2]] = sum(part.length for part in bar.parts)
    rest = max(0.0, whole - sum(sums.values()))
    said = f"{span(whole)} in all: " + ", ".join(
        f"{kind} {span(value)}" for (kind, _), value in sums.items() if value >= LEAST_MS
    )
    title = "Every trial on the time axis of the run"
    return tag(
        "section",
        tag("h2", "Where the time went"),
        _legend(sums, rest, whole),
        tag("figure", bars("timeline", title, said, rows, whole, span)),
        _table(trials, spent, aside, varying),
    )


def _row(trial: Mapping[str, Any], began: datetime, varying: Mapping[str, bool]) -> Bar:
    parts = []
    start = _moment(trial["started_at"])
    at = (start - began).total_seconds() * 1000 if start is not None else 0.0
    spent = _spent(trial)
    for name, (kind, _) in PARTS.items():
        length = spent.get(name)
        if length and length >= LEAST_MS:
            parts.append(Part(kind, max(0.0, at), length, f"{kind}: {span(length)}"))
            at += length
    return Bar(named(trial, varying), span(sum(value or 0.0 for value in spent.values())), parts)


def _aside(phases: Sequence[tuple[str, str]], began: datetime) -> list[tuple[str, Bar]]:
    """The bars of drain and restore; none for a run that drained nothing."""
    if not any(phase == "draining" for phase, _ in phases):
        return []
    found = []
    for (phase, entered), (_, left) in itertools.pairwise(phases):
        start, end = _moment(entered), _moment(left)
        if phase in ASIDE and start is not None and end is not None:
            kind, _, label = ASIDE[phase]
            at = max(0.0, (start - began).total_seconds() * 1000)
            length = (end - start).total_seconds() * 1000
            part = Part(kind, at, length, f"{kind}: {span(length)}")
            found.append((phase, Bar(label, span(length), [part])))
    return found


def named(trial: Mapping[str, Any], varying: Mapping[str, bool]) -> str:
    """A trial in a few words: the candidate that was probed, or the settings of a cell."""
    if trial["knobs"] is None:
        name = short(trial["model"])
        return f"probe of {name if len(name) <= LONGEST else name[: LONGEST - 1] + ELLIPSIS}"
    return knobs(trial["knobs"], varying) or "the one cell"


def _spent(trial: Mapping[str, Any]) -> dict[str, float | None]:
    """The parts in ms; of a trial from before they were kept, what else is known of them."""
    spent = dict(trial.get("spent") or {})
    if not any(value is not None for value in spent.values()):
        requests = sum(sample["total_ms"] or 0.0 for sample in trial["samples"])
        spent = {"load_ms": trial["load_ms"], "measure_ms": requests or None}
    return spent


def _legend(sums: Mapping[tuple[str, str], float], rest: float, whole: float) -> Markup:
    def entry(kind: str, value: float, means: str) -> Markup:
        return tag(
            "li",
            tag("span", class_=f"key {kind}", aria_hidden="true"),
            tag("b", kind),
            f" {span(value)}",
            tag("span", f" {_part_of(value, whole)}", class_="share"),
            tag("span", means, class_="means"),
        )

    entries = [
        entry(kind, value, means) for (kind, means), value in sums.items() if value >= LEAST_MS
    ]
    entries.append(entry("other", rest, "checks before and between, and bookkeeping"))
    return tag("ul", lines(*entries), class_="legend")


def _part_of(value: float, whole: float) -> str:
    part = value / whole
    return f"{part:.0%}" if part >= 0.005 or part == 0 else "<1%"


def _table(
    trials: Sequence[Mapping[str, Any]],
    spent: Sequence[Mapping[str, float | None]],
    aside: Sequence[tuple[str, Bar]],
    varying: Mapping[str, bool],
) -> Markup:
    used = [name for name in PARTS if any((parts.get(name) or 0) >= LEAST_MS for parts in spent)]
    rows = [
        [
            named(trial, varying),
            *(DASH if parts.get(name) is None else span(parts[name]) for name in used),
            span(sum(value or 0.0 for value in parts.values())),
        ]
        for trial, parts in zip(trials, spent, strict=True)
    ]
    before, after = (
        [[bar.label, *(DASH for _ in used), bar.value] for phase, bar in aside if phase == wanted]
        for wanted in ("draining", "restoring")
    )
    heading = ["Trial", *(PARTS[name][0] for name in used), "in all"]
    return table(
        "The same as a table", heading, [*before, *rows, *after], numbers=range(1, len(heading))
    )


def _moment(value: Any) -> datetime | None:
    """A moment with its zone; None for what a prototype may have written."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else None
