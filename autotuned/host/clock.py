"""The wall clock, in the one form in which the agent writes times down: UTC, ISO 8601, `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    """Now, to the millisecond, as `2026-01-31T12:00:00.000Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
