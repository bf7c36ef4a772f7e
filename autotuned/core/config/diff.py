"""Two configuration files set against each other in their owned keys, and the surgical way back to a backup.

A diff is a unified one without context: everything else that a file holds may be secret, so no other line
ever gets into it. The way back takes our keys' lines as the backup has them, every other as it is now. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autotuned.core.config.reader import (
    BOM,
    BREAK,
    WRITTEN,
    ConfigFile,
    Entry,
    Refused,
    Scalar,
    line_start,
    read,
    rest,
)
from autotuned.core.lease import Lines

LEFT = Refused("cannot take the lines of the backup without touching others")


def diff(before: str, after: str, name: str) -> str:
    """Unified diff (no context) of the owned keys' lines; empty where they are equal or cannot be read."""
    old, new = read(before.removeprefix(BOM)), read(after.removeprefix(BOM))
    if isinstance(old, Refused) or isinstance(new, Refused):
        return ""
    replaced: list[_Hunk] = []
    added: list[_Hunk] = []
    for key in WRITTEN:
        (gone, at_old), (come, at_new) = _block(old, key), _block(new, key)
        if gone != come:
            (replaced if gone else added).append(_Hunk(at_old, at_new, gone, come))
    if not replaced and not added:
        return ""
    replaced.sort(key=lambda hunk: hunk.at_old)
    added = _joined(sorted(added, key=lambda hunk: hunk.at_new))
    lines, shift = [f"--- {name}", f"+++ {name}"], 0
    while replaced or added:
        first = added and (not replaced or added[0].at_new < replaced[0].at_old + shift)
        hunk = added.pop(0) if first else replaced.pop(0)
        lines += hunk.lines(shift)
        shift += len(hunk.come) - len(hunk.gone)
    return "\n".join(lines) + "\n"


def lines(before: str, after: str) -> list[Lines]:
    """For each key that an edit changed, its whole lines as they are and as they were."""
    old, new = read(before.removeprefix(BOM)), read(after.removeprefix(BOM))
    if isinstance(old, Refused) or isinstance(new, Refused):
        return []
    both = [Lines(key=key, new=_lines(new, key), old=_lines(old, key)) for key in WRITTEN]
    return [change for change in both if change["new"] != change["old"]]


def differences(before: str, after: str) -> dict[str, Mapping[str, Scalar]]:
    """The owned keys in which two files differ, each with both values; empty where one cannot be read."""
    old, new = read(before.removeprefix(BOM)), read(after.removeprefix(BOM))
    if isinstance(old, Refused) or isinstance(new, Refused):
        return {}
    values = {key: {"before": old.shown(key), "after": new.shown(key)} for key in WRITTEN}
    return {key: both for key, both in values.items() if both["before"] != both["after"]}


def reverted(now: str, backup: str) -> str | Refused:
    """`now` with the keys of WRITTEN as `backup` has them: the backup itself where nothing else differs."""
    file, old = read(now.removeprefix(BOM)), read(backup.removeprefix(BOM))
    if isinstance(file, Refused):
        return file
    if isinstance(old, Refused):
        return Refused(f"has a backup that {old.reason}")
    if _foreign(file) == _foreign(old) and now.startswith(BOM) == backup.startswith(BOM):
        return backup
    others = rest(file, WRITTEN)
    text = file.text
    for key in WRITTEN:
        current = read(text)
        if isinstance(current, Refused):
            return LEFT
        text = _with_lines_of(current, old, key)
    after = read(text)
    if others is None or isinstance(after, Refused) or rest(after, WRITTEN) != others:
        return LEFT
    if any(_said(after, key) != _said(old, key) for key in WRITTEN):
        return LEFT
    return (BOM if now.startswith(BOM) else "") + text


@dataclass(frozen=True, slots=True)
class _Hunk:
    """The lines of one key before and after, and the number of the first in either file."""

    at_old: int
    at_new: int
    gone: list[str]
    come: list[str]

    def lines(self, shift: int) -> list[str]:
        """Header and lines; `shift` is by how many lines the new file is longer above. No lines: the one above."""
        start_old = self.at_old if self.gone else self.at_new - 1 - shift
        start_new = self.at_new if self.come else self.at_old - 1 + shift
        head = f"@@ -{start_old},{len(self.gone)} +{start_new},{len(self.come)} @@"
        return [
            head,
            *(f"-{line}" for line in self.gone),
            *(f"+{line}" for line in self.come),
        ]


def _joined(added: list[_Hunk]) -> list[_Hunk]:
    """Keys that were added one right below the other, as one hunk."""
    joined: list[_Hunk] = []
    for hunk in added:
        if joined and joined[-1].at_new + len(joined[-1].come) == hunk.at_new:
            above = joined.pop()
            hunk = replace(above, come=[*above.come, *hunk.come])  # noqa: PLW2901 - it has grown
        joined.append(hunk)
    return joined


def _lines(file: ConfigFile, key: str) -> str | None:
    entry = file.named(key)
    if entry is None:
        return None
    start, end = file.block(entry)
    return file.text[start:end]


def _block(file: ConfigFile, key: str) -> tuple[list[str], int]:
    """The lines of a key, and the number of the first; nothing and 0 where it is absent."""
    entry = file.named(key)
    if entry is None:
        return [], 0
    return (_lines(file, key) or "").splitlines(), file.line_of(file.block(entry)[0])


def _with_lines_of(file: ConfigFile, old: ConfigFile, key: str) -> str:
    """The text of `file` with one key's lines as in `old`; where it had none, at the place that `old` has them."""
    here, there = file.named(key), old.named(key)
    lines = _lines(old, key) or ""
    if there is not None and not lines.endswith(("\n", "\r")):
        lines += "\n"
    if here is not None:
        start, end = file.block(here)
        return file.text[:start] + lines + file.text[end:]
    if there is None:
        return file.text
    place = _place(file, old, there)
    head, tail = file.text[:place], file.text[place:]
    if head and not head.endswith(("\n", "\r")):
        found = BREAK.search(file.text)
        head += found[0] if found else "\n"
    return head + lines + tail


def _place(file: ConfigFile, old: ConfigFile, entry: Entry) -> int:
    """Before the next key that both files have, unless the line above is the same behind the one before it."""
    at = old.entries.index(entry)
    above = _line_above(old.text, line_start(old.text, entry.start))
    after = next((e for name in old.entries[at + 1 :] if (e := file.named(name.key or ""))), None)
    before = next((e for name in old.entries[:at][::-1] if (e := file.named(name.key or ""))), None)
    places = [] if after is None else [line_start(file.text, after.start)]
    if before is not None:
        places.append(file.block(before)[1])
    places.append(file.end)
    return next((p for p in places if _line_above(file.text, p) == above), places[0])


def _line_above(text: str, offset: int) -> str:
    return text[line_start(text, max(offset - 1, 0)) : offset].rstrip("\r\n")


def _foreign(file: ConfigFile) -> str:
    """The text without the lines of our keys, and without the line break at its end."""
    text = file.text
    for entry in reversed(file.entries):
        if entry.key in WRITTEN:
            start, end = file.block(entry)
            text = text[:start] + text[end:]
    return text.removesuffix("\n").removesuffix("\r")


def _said(file: ConfigFile, key: str) -> list[object]:
    entry = file.named(key)
    numbers = () if entry is None else range(entry.value, entry.last)
    names = ("tag", "value", "style", "flow_style")
    return [[getattr(file.events[n], name, None) for name in names] for n in numbers]
