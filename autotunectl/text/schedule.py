"""The nightly re-tune as text for people: plain strings, no terminal control, no decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotunectl.text.layout import Table, columns, duration, local
from autotunectl.text.result import schedule_line

if TYPE_CHECKING:
    from autotuned.documents.schedule import DecisionDocument, ScheduleDocument

LATEST = 5


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
        table.append(
            (
                each["night"] or "-",
                local(each["at"]),
                f"{each['decision']}: {each['reason']}",
                run if each["outcome"] is None else f"{run} {each['outcome']}",
            )
        )
    return table
