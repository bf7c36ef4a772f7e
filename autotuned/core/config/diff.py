"""The difference between two configuration files in their owned keys, as a unified diff without context.

Everything else that a file holds may be secret, so no other line ever gets into it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotuned.core.config.reader import BOM, WRITTEN, ConfigFile, Refused, read
from autotuned.core.lease import Lines


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
    start, end = file.block(entry)
    return file.text[start:end].splitlines(), file.line_of(start)
