"""Weights as text for people: what is in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotunectl.text.formats import size
from autotunectl.text.layout import columns


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
