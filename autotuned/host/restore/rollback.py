"""Taking an apply back: the old configuration whole while nobody else has written it, else our own lines.

Under the lock of the provider's own writers. Idempotent; what somebody has changed since stays as it
is. Standard library only: guardian and break glass do it too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from autotuned.core.lease import Lines, Rollback
from autotuned.errors import UnsafePath
from autotuned.host import failpoint, operators_file
from autotuned.host.operators_file import Original
from autotuned.shared.files import sync_folder

ATTEMPTS = 4


def roll_back(record: Rollback) -> None:
    """Put back what `record` tells of. Raises AutotunedError or OSError, the file as it was then."""
    path = Path(record["path"])
    with operators_file.locked(path):
        for _ in range(ATTEMPTS):
            original = operators_file.look(path)
            if original.content is None or _replaced(original, _before(record, original.content)):
                failpoint.reach("rollback.replaced")
                return
    raise UnsafePath(path, "somebody else keeps writing it")


def _before(record: Rollback, content: bytes) -> bytes | None:
    """The content to put back; None where there was no file."""
    if hashlib.sha256(content).hexdigest() == record["sha256"]:
        if record["backup"] is None:
            return None
        backup = operators_file.look(Path(record["backup"])).content
        if backup is not None:
            return backup
    text = content.decode("utf-8", "surrogateescape")
    for lines in record["lines"]:
        text = _line_put_back(text, lines)
    return text.encode("utf-8", "surrogateescape")


def _line_put_back(text: str, lines: Lines) -> str:
    """`text` with the old lines of one key, where ours stand as we wrote them."""
    new, old = lines["new"], lines["old"] or ""
    if new is None:
        if any(line.startswith(f"{lines['key']}:") for line in text.splitlines()):
            return text
        return (text if text.endswith("\n") or not text else f"{text}\n") + old
    at = 0 if text.startswith(new) else text.find(f"\n{new}") + 1
    end = at + len(new)
    if not text.startswith(new, at) or not (
        new.endswith("\n") or text[end : end + 1] in ("", "\n")
    ):
        return text
    if old and not old.endswith("\n") and new.endswith("\n"):
        old += "\n"
    return text[:at] + old + text[end:]


def _replaced(original: Original, content: bytes | None) -> bool:
    """False where somebody was quicker."""
    if content == original.content:
        return True
    if content is not None:
        return operators_file.replace(original, content)
    if not operators_file.untouched(original):
        return False
    original.target.unlink()
    sync_folder(original.target.parent)
    return True
