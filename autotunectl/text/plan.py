"""What is to be done, as text for people: the plan of a run, and the nightly re-tune."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from autotunectl.text.layout import Table, columns, duration, local, size
from autotuned.shared.knobs import flags

if TYPE_CHECKING:
    from autotuned.documents.run import FetchDocument, PlanDocument, PlannedCandidate
    from autotuned.documents.schedule import BriefDocument, DecisionDocument, ScheduleDocument

LISTED = 24
"""Cells that are shown one by one; up to so many `--search auto` measures all."""
LATEST = 5


def plan(document: PlanDocument) -> str:
    """The plan: candidates, cells, what stands in the way, what it costs."""
    lines = [
        f"PLAN for {document['provider']} {document['binary_version']} ({shlex.join(document['binary'])})",
        "",
        "candidates",
    ]
    lines += _candidates(document["candidates"])
    lines += ["", *_cells(document), ""]
    lines.append(f"in the way     {', '.join(document['conflicts']) or 'nothing'}")
    lines += _fetching(document)
    lines.append(f"disk free      {size(document['disk_free_bytes'])} on the cache's disk")
    known = "unknown before a first good run"
    if document["estimate_s"] is not None:
        known = duration(document["estimate_s"])
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
    order = "in this order"
    if search["kind"] == "tpe":
        order = "the first is the first; the search decides which follow"
    part, whole = search["trials"], search["cells"]
    measured = f"all {whole}" if part == whole else f"at most {part} of {whole}"
    dropped = [f"  left out: {search['left_out']} in which a knob would do nothing"]
    heading = f"cells: {measured} measured, {order}"
    return [heading, *lines, *(dropped if search["left_out"] else [])]


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
    unknown = any(
        not each["cached"] and each["weights_bytes"] is None for each in document["candidates"]
    )
    if not document["fetch_bytes"]:
        return [f"to fetch       {'unknown' if unknown else 'nothing'}"]
    time = "time unknown: no download has been measured yet"
    if document["fetch_s"] is not None:
        time = f"{duration(document['fetch_s'])} at the last rate, {size(document['fetch_rate'])}/s"
    return [
        f"to fetch       {size(document['fetch_bytes'])} {'and more' if unknown else 'at most'} ({time})",
        "               less when an earlier candidate passes; not part of the time estimate",
    ]


def _candidate(entry: PlannedCandidate) -> str:
    if entry["reason"] is not None:
        return str(entry["reason"])
    if entry["cached"]:
        return f"ready, {size(entry['weights_bytes'])} on this disk"
    return f"to fetch, {size(entry['fetch_bytes'])}"


def begun(document: Mapping[str, Any]) -> Table:
    """The run that a machine has begun."""
    return [("RUN", "STATE"), (document["run_id"], document["state"])]


def schedule_line(document: BriefDocument | ScheduleDocument) -> str:
    """On or off, when a run may begin next, why it cannot or has paused itself; one line."""
    if not document["enabled"]:
        return "off: autotunectl schedule set --at 03:30"
    if document.get("fault"):
        return f"set for {document['at']}, but CANNOT FIRE: {document['fault']}"
    if document["paused"]:
        return f"{document['paused']}; set it again, or autotunectl schedule run-now"
    coming = document["next_run_at"]
    return f"nightly at {document['at']}, next {'-' if coming is None else local(coming)}"


def schedule(document: ScheduleDocument, *, history: bool, room: int | None = None) -> str:
    """The schedule and its latest decisions, or all of them."""
    lines = [f"schedule  {schedule_line(document)}"]
    if document["enabled"]:
        days = ", ".join(document["days"]) or "every day"
        permits = [
            "may drain the live provider" if document["drain"] else "refuses a live provider",
            "applies a whole recommendation" if document["apply"] else "applies nothing",
        ]
        if document.get("restart_foreground"):
            permits.insert(1, "may restart a server in a terminal")
        permits += ["only on mains power"] if document["only_on_ac"] else []
        lines += [
            f"window    {duration(document['window_s'])} from {document['at']} local time, {days}",
            f"when      {'something has changed' if document['when'] == 'stale' else 'always'}",
            f"permits   {'; '.join(permits)}",
        ]
        if document.get("first") == "check":
            lines.append("first     checks the recipe after a change; tunes only where it lost")
        if document["request"]:
            fields = (f"{name}={value}" for name, value in document["request"].items())
            lines.append(f"request   {' '.join(fields)}, the rest as in the last good run")
    shown = document["history"] if history else document["history"][:LATEST]
    if shown:
        lines += ["", columns(_decisions(shown), room)]
    return "\n".join(lines)


def _decisions(decisions: list[DecisionDocument]) -> Table:
    table: Table = [("NIGHT", "DECIDED", "DECISION", "RUN")]
    for each in decisions:
        run = each["run_id"] or "-"
        ended = run if each["outcome"] is None else f"{run} {each['outcome']}"
        decided = f"{each['decision']}: {each['reason']}"
        table.append((each["night"] or "-", local(each["at"]), decided, ended))
    return table
