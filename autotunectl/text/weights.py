"""Weights as text for people: what is in the cache."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from autotunectl.text.layout import columns, duration, size
from autotuned.shared.knobs import flags

if TYPE_CHECKING:
    from autotuned.documents.run import FetchDocument, PlanDocument, PlannedCandidate
    from autotuned.documents.weights import ModelDocument, ModelsDocument

LISTED = 24
"""Cells that are shown one by one; up to so many `--search auto` measures all."""


def models(document: ModelsDocument, room: int | None = None) -> str:
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


def _state(entry: ModelDocument) -> str:
    if not entry["complete"]:
        return f"incomplete: {entry['reason']}"
    return "complete" if entry["checked_at"] is None else f"checked {entry['checked_at'][:10]}"


def plan(document: PlanDocument) -> str:
    """The plan: candidates, cells, what stands in the way, what it costs."""
    lines = [
        f"PLAN for {document['provider']} {document['binary_version']} ({shlex.join(document['binary'])})",
        "",
        "candidates",
    ]
    lines += _candidates(document["candidates"])
    lines += [
        "",
        *_cells(document),
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


def _cells(document: PlanDocument) -> list[str]:
    """The cells of a plan, of many only the first, and how many of them are measured."""
    cells, search = document["cells"], document.get("search")
    lines = [f"  {index}. {flags(cell)}" for index, cell in enumerate(cells[:LISTED], start=1)]
    if len(cells) > LISTED:
        lines.append(f"  ... and {len(cells) - LISTED} more")
    if search is None:
        return ["cells", *lines]
    order = (
        "the first is the first; the search decides which follow"
        if search["kind"] == "tpe"
        else "in this order"
    )
    heading = f"cells: {of(search['trials'], search['cells'])} measured, {order}"
    dropped = [f"  left out: {search['left_out']} in which a knob would do nothing"]
    return [heading, *lines, *(dropped if search["left_out"] else [])]


def of(part: int, whole: int) -> str:
    """`at most 17 of 216`, or `all 6`."""
    return f"all {whole}" if part == whole else f"at most {part} of {whole}"


def large(document: PlanDocument) -> str | None:
    """What somebody should know who is about to measure every cell of a large space; None of a small one."""
    search = document.get("search")
    if search is None or search["cells"] <= LISTED:
        return None
    time = "as long as no run has told how long one takes, nobody knows for how long"
    if document["cell_s"] is not None:
        whole, part = (duration(document["cell_s"] * search[name]) for name in ("cells", "auto"))
        time = f"some {whole}, at most {duration(document['max_duration_s'])}; with --search auto {part}"
    return f"{search['cells']} cells: {time}; --search auto would measure {search['auto']} of them"


def _candidates(entries: Iterable[PlannedCandidate]) -> list[str]:
    """The candidates of a plan, one line each, with what their weights would cost."""
    lines = []
    for entry in entries:
        parameters = "" if entry["size_b"] is None else f" ({entry['size_b']:g}B)"
        lines.append(f"  {entry['rank']}. {entry['model']}{parameters}: {_candidate(entry)}")
    return lines


def _fetching(document: FetchDocument) -> list[str]:
    """What a plan would fetch at most, and how long that takes at the rate measured last."""
    unknown = [each for each in document["candidates"] if _unknown(each)]
    if not document["fetch_bytes"]:
        return [f"to fetch       {'unknown' if unknown else 'nothing'}"]
    time = "time unknown: no download has been measured yet"
    if document["fetch_s"] is not None:
        time = f"{duration(document['fetch_s'])} at the last rate, {size(document['fetch_rate'])}/s"
    return [
        f"to fetch       {size(document['fetch_bytes'])} {'and more' if unknown else 'at most'} ({time})",
        "               less when an earlier candidate passes; not part of the time estimate",
    ]


def _unknown(entry: PlannedCandidate) -> bool:
    """Nobody could say how large its weights are."""
    return not entry["cached"] and entry["weights_bytes"] is None


def _candidate(entry: PlannedCandidate) -> str:
    if entry["reason"] is not None:
        return str(entry["reason"])
    if entry["cached"]:
        return f"ready, {size(entry['weights_bytes'])} on this disk"
    return f"to fetch, {size(entry['fetch_bytes'])}"
