"""Text made to fit the terminal that it goes to: long lines folded with a hanging indent, tables that stay tables.

What goes into a pipe or a file is left alone, so that programs get whole lines. Commands that are to be
copied are never broken, they move to a line of their own. Strings only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO

from autotuned.shared.text import count, gigabytes, number, rate, short

Table = list[tuple[str, ...]]
"""Rows of equally many cells, the heading first."""
NARROWEST = 24
LABEL_ENDS = 20
COMMANDS = ("serve", "apply", "try one", "do")
"""Labels whose text is a command."""


def width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that a stream (stdout) is; None where it is none, or does not say."""
    stream = sys.stdout if stream is None else stream
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    try:
        found = int(said) if said.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return None
    return max(NARROWEST, found) if found else None


def fold(text: str, room: int | None) -> str:
    """The text with every line at most `room` wide, as far as its words and commands allow."""
    if room is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _folded(line, room))


def columns(table: Table, room: int | None = None) -> str:
    """A table with its columns aligned, two spaces apart.

    Where it is too wide, each row's last cell goes onto a line of its own; where that does not help, each
    row becomes lines of a heading and its cell.
    """
    plain = _aligned(table)
    if room is None or all(len(line) <= room for line in plain):
        return "\n".join(plain)
    without_last = _aligned([row[:-1] for row in table])
    if len(table[0]) > 2 and all(len(line) <= room for line in without_last):
        lines = [without_last[0]]
        for line, row in zip(without_last[1:], table[1:], strict=True):
            lines += [line, *_folded(f"    {row[-1]}", room)] if row[-1].strip("-") else [line]
        return "\n".join(lines)
    label = max(map(len, table[0])) + 2
    blocks = [
        "\n".join(
            part
            for name, cell in zip(table[0], row, strict=True)
            if cell.strip("-")
            for part in _hanging(f"{name.ljust(label)}", cell, room)
        )
        for row in table[1:]
    ]
    return "\n\n".join(blocks)


def _aligned(table: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(table)
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _folded(line: str, room: int) -> Iterator[str]:
    if len(line) <= room:
        yield line
        return
    lead = len(line) - len(line.lstrip(" "))
    gap = line.find("  ", lead)
    if gap < 0 or gap > lead + LABEL_ENDS:
        yield from _hanging(" " * lead, line[lead:], room, deeper=2)
        return
    start = gap + len(line[gap:]) - len(line[gap:].lstrip(" "))
    label, text = line[:start], line[start:]
    if label.strip() in COMMANDS:
        yield label.rstrip()
        yield f"{' ' * (lead + 2)}{text}"
    else:
        yield from _hanging(label, text, room)


def _hanging(label: str, text: str, room: int, deeper: int = 0) -> Iterator[str]:
    """`label` and the words of `text`, those that do not fit below its beginning; a long word has its own line."""
    indent = " " * (len(label) + deeper)
    if len(indent) > room // 2:
        indent = "    "
    line, empty = label, True
    for word in text.split(" "):
        if not empty and len(line) + 1 + len(word) > room:
            yield line.rstrip()
            line, empty = indent, True
        line += word if empty else f" {word}"
        empty = False
    yield line.rstrip()


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
