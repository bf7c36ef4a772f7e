"""The difference between two configuration files in their owned keys, as a unified diff without context.

Everything else that a file holds may be secret, so no other line ever gets into it. Pure.
"""

from __future__ import annotations

from autotuned.core.configfile import BOM, OWNED, ConfigFile, Refused, read


def diff(before: str, after: str, name: str) -> str:
    """Unified diff (no context) of the owned keys' lines; empty where they are equal or cannot be read."""
    old, new = read(before.removeprefix(BOM)), read(after.removeprefix(BOM))
    if isinstance(old, Refused) or isinstance(new, Refused):
        return ""
    hunks: list[tuple[int, int, list[str], list[str]]] = []
    for key in OWNED:
        removed, at_old = _block(old, key)
        added, at_new = _block(new, key)
        if removed != added:
            hunks.append((at_old or at_new, at_new, removed, added))
    if not hunks:
        return ""
    lines = [f"--- {name}", f"+++ {name}"]
    shift = 0
    for at_old, at_new, removed, added in sorted(hunks, key=lambda hunk: (hunk[0], hunk[1])):
        start_old = at_old if removed else at_new - 1 - shift
        start_new = at_new if added else at_old - 1 + shift
        shift += len(added) - len(removed)
        lines.append(f"@@ -{start_old},{len(removed)} +{start_new},{len(added)} @@")
        lines += [f"-{line}" for line in removed] + [f"+{line}" for line in added]
    return "\n".join(lines) + "\n"


def _block(file: ConfigFile, key: str) -> tuple[list[str], int]:
    """The lines of a key, and the number of the first; nothing and 0 where it is absent."""
    entry = file.named(key)
    if entry is None:
        return [], 0
    start, end = file.block(entry)
    return file.text[start:end].splitlines(), file.line_of(start)
