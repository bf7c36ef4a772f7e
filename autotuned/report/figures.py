"""Figures as people read them; a dash where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
NAMES = {
    "kv_bits": "kv_bits",
    "max_concurrency_override": "max_batch",
    "max_context_override": "max_context",
}
"""Knobs, from the names of the configuration file to those of the flags."""


def number(value: float | None, digits: int = 2) -> str:
    """With thousands set apart."""
    return DASH if value is None else f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """Tokens per second: three figures or more, never two digits too many."""
    return (
        DASH if value is None else number(value, 0 if value >= 1000 else 1 if value >= 100 else 2)
    )


def span(ms: float | None) -> str:
    """Milliseconds as ms, s or minutes, whichever is read best."""
    if ms is None:
        return DASH
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:,.0f} ms"
    if ms < 99_950:
        said = f"{ms / 1000:.{2 if ms < 9_995 else 1}f}"
        return f"{said.removesuffix('.00').removesuffix('.0')} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{minutes} min {seconds:02} s" if seconds else f"{minutes} min"


def memory(size: int | None) -> str:
    """Bytes as GB (2^30), as the machine's memory is given."""
    return DASH if size is None else f"{size / 2**30:,.2f} GB"


def tick(value: float) -> str:
    """A round value at an axis."""
    return f"{value:,.10g}"


def share(value: float) -> str:
    """A part of one, in percent."""
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"


def percent(value: float) -> str:
    """A relative difference with its sign."""
    said = share(abs(value))
    return f"+{said}" if value > 0 else f"{MINUS}{said}" if value < 0 else said


def short(model: str) -> str:
    """The last component of an id or path."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def knob(value: Any) -> str:
    """A knob's value; null is `unset`."""
    return "unset" if value is None else str(value)


def knobs(chosen: Mapping[str, Any], varying: Mapping[str, bool] | None = None) -> str:
    """Knobs in one line; only those that vary, where told which."""
    return " \N{MIDDLE DOT} ".join(
        f"{NAMES[name]} {knob(value)}"
        for name, value in chosen.items()
        if varying is None or varying.get(name)
    )
