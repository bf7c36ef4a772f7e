"""Numbers, sizes and names as people read them, on the terminal and in the report; a dash where there is none."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

DASH = "-"
LOST = "\N{REPLACEMENT CHARACTER}"


def printable(value: object, lost: str = LOST) -> str:
    """Any value as text, with `lost` for what could hide or reorder its neighbours (controls, bidi marks)."""
    return "".join(lost if _hides(letter) else letter for letter in str(value))


def _hides(letter: str) -> bool:
    return letter not in "\n\t\u200d" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")


def one_line(text: str, lost: str = "") -> str:
    """The words of a text on one line; `lost` for each letter that a terminal would act upon instead of showing it."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else lost for letter in line)


def count(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


REMARKS = {
    "degenerate answer": "answers ended by repeating themselves, so their speed may not be that of useful text",
    "no visible text": "answers held no text to show, so they count as their first token at their end",
    "tokens counted from chunks": "the server reports no usage, and one chunk may hold several tokens",
}


def explained(warning: str) -> str:
    """A warning, with what the short remarks on answers mean."""
    return f"{warning}: {REMARKS[warning]}" if warning in REMARKS else warning


def service_name(found: Mapping[str, object]) -> str | None:
    """The service that a live server or a lease is on; None for a process from a terminal."""
    if found["kind"] == "launchd":
        return f"{found['domain']}/{found['label']}"
    return f"{found['unit']} ({found['scope']} unit)" if found["kind"] == "systemd" else None


def short(model: str) -> str:
    """The last component of an id or path."""
    return model.rstrip("/").rsplit("/", 1)[-1] or model


def number(value: float | None, unit: str = "", digits: int = 1) -> str:
    """With thousands set apart, and its unit."""
    return DASH if value is None else f"{value:,.{digits}f}{unit}"


def rate(value: float | None) -> str:
    """Tokens per second: three figures or more, never two digits too many."""
    digits = 2 if value is None or value < 100 else 1 if value < 1000 else 0
    return number(value, "", digits)


def gigabytes(size: int | None) -> str:
    """Bytes as GB (2^30), as a machine's memory is given."""
    return DASH if size is None else f"{size / 2**30:,.2f} GB"


def span(ms: float | None) -> str:
    """Milliseconds as ms, s or minutes, whichever is read best."""
    if ms is None:
        return DASH
    if ms < 999.5:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    if ms < 99_950:
        seconds = f"{ms / 1000:.{2 if ms < 9_995 else 1}f}"
        return f"{seconds.removesuffix('.00').removesuffix('.0')} s"
    minutes, rest = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"


def share(value: float) -> str:
    """A part of one, in percent."""
    return f"{value * 100:.1f}\N{NO-BREAK SPACE}%"


def signed_share(value: float) -> str:
    """A relative difference in percent, with its sign."""
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return sign + share(abs(value))
