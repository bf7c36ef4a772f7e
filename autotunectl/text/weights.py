"""Weights as text for people: what is in the cache."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from autotunectl.text.layout import columns, duration, size
from autotuned.shared.knobs import flags


def models(document: Mapping[str, Any], room: int | None = None) -> str:
    """The table of the cache, largest weights first, with where it is and what room is left."""
    found = sorted(document["models"], key=lambda entry: -entry["weights_bytes"])
    foot = (
        f"cache {document['cache']}: {size(document['disk_free_bytes'])} free; "
        f"memory {size(document['memory_bytes'])}"
    )
    if not found:
        return f"no models in the cache yet: autotunectl pull MODEL\n{foot}"
    table: list[tuple[str, ...]] = [("MODEL", "PARAMETERS", "WEIGHTS", "FITS", "STATE")]
    for entry in found:
        parameters = "-" if entry["size_b"] is None else f"{entry['size_b']:g}B"
        fits = "yes" if entry["fits"] else "no"
        table.append(
            (entry["model"], parameters, size(entry["weights_bytes"]), fits, _state(entry))
        )
    return f"{columns(table, room)}\n\n{foot}"


def _state(entry: Mapping[str, Any]) -> str:
    if not entry["complete"]:
        return f"incomplete: {entry['reason']}"
    return "complete" if entry["checked_at"] is None else f"checked {entry['checked_at'][:10]}"


def plan(document: Mapping[str, Any]) -> str:
    """The plan: candidates, cells, what stands in the way, what it costs."""
    lines = [
        f"PLAN for {document['provider']} {document['binary_version']} ({shlex.join(document['binary'])})",
        "",
        "candidates",
    ]
    lines += _candidates(document["candidates"])
    lines += [
        "",
        "cells",
        *(f"  {index}. {flags(cell)}" for index, cell in enumerate(document["cells"], start=1)),
        "",
    ]
    lines.append(f"in the way     {', '.join(document['conflicts']) or 'nothing'}")
    lines += _fetching(document)
    lines.append(f"disk free      {size(document['disk_free_bytes'])} on the cache's disk")
    known = (
        "unknown before a first good run"
        if document["estimate_s"] is None
        else duration(document["estimate_s"])
    )
    lines.append(f"time estimate  {known}, at most {duration(document['max_duration_s'])}")
    return "\n".join(lines)


def _candidates(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """The candidates of a plan, one line each, with what their weights would cost."""
    lines = []
    for entry in entries:
        parameters = "" if entry["size_b"] is None else f" ({entry['size_b']:g}B)"
        lines.append(f"  {entry['rank']}. {entry['model']}{parameters}: {_candidate(entry)}")
    return lines


def _fetching(document: Mapping[str, Any]) -> list[str]:
    """What a plan would fetch at most, and how long that takes at the rate measured last."""
    if not document["fetch_bytes"]:
        return ["to fetch       nothing"]
    time = "time unknown: no download has been measured yet"
    if document["fetch_s"] is not None:
        time = f"{duration(document['fetch_s'])} at the last rate, {size(document['fetch_rate'])}/s"
    return [
        f"to fetch       {size(document['fetch_bytes'])} at most ({time})",
        "               less when an earlier candidate passes; not part of the time estimate",
    ]


def _candidate(entry: Mapping[str, Any]) -> str:
    if entry["reason"] is not None:
        return str(entry["reason"])
    if entry["cached"]:
        return f"ready, {size(entry['weights_bytes'])} on this disk"
    return f"to fetch, {size(entry['fetch_bytes'])}"
