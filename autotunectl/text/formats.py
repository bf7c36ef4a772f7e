"""Figures, sizes, durations and names as people read them: what every text is made of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from autotuned.shared.text import count, gigabytes, number, rate, short

__all__ = [
    "bar", "count", "duration", "eta", "gigabytes", "local", "number", "rate", "short", "size",
    "transfer",
]  # fmt: skip
BAR = "━", "╌"


def duration(seconds: Any) -> str:
    """Seconds as `1:02:03` or `2:03`; a dash where unknown."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: Any) -> str:
    """Bytes as people read them: `1.7 GB` is 1.7 x 2^30."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "KB", "MB", "GB", "TB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def transfer(document: Mapping[str, Any] | None) -> str | None:
    """`fetching 1.2 GB of 4.0 GB (30%), 54.0 MB/s, 0:53 left`; None where nothing is known yet."""
    if not document:
        return None
    done, total, speed = document["bytes"], document["total"], document["rate"]
    doing = "fetching" if document["activity"] == "fetch" else "checking"
    share = f" ({done / total:.0%})" if total else ""
    left = f", {duration((total - done) / speed)} left" if speed else ""
    return f"{doing} {size(done)} of {size(total)}{share}, {size(speed)}/s{left}"


def eta(progress: Mapping[str, Any]) -> str:
    """When a run may be over: `2:40`, or what its budget leaves where nothing like it was measured yet."""
    left = progress.get("eta_s")
    return duration(left) if left is not None else f"at most {duration(progress['budget_left_s'])}"


def bar(share: float, room: int) -> str:
    """A part of one as a bar of `room` columns."""
    filled = round(room * min(1.0, max(0.0, share)))
    return BAR[0] * filled + BAR[1] * (room - filled)


def local(moment: str) -> str:
    """A UTC time of a document in this terminal's zone."""

    return f"{datetime.fromisoformat(moment).astimezone():%a %Y-%m-%d %H:%M}"
