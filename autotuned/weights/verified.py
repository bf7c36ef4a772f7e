"""What has been checked before: a file beside the store, so that no gigabyte is read twice for nothing.

Weights count as checked while every file that belongs to them has the same name, size, time and inode.
Losing the file costs one more check. Must not know how anything is checked.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotuned.host.clock import utc_now
from autotuned.host.files import write_atomic
from autotuned.weights.cache import Weights

Marks = list[list[str | int]]
"""Of each file its name, what it links to, size, time and inode."""
VERSION = 1
KEPT = 1000


class Ledger:
    """The remembered checks, and the rate of the last download. Safe from several threads."""

    def __init__(self, path: Path) -> None:
        """`path` may not exist yet, nor its folder; what cannot be read counts as empty."""
        self._path = path
        self._lock = threading.Lock()
        self._content: dict[str, Any] | None = None

    def known(self, path: Path, files: Sequence[Path]) -> Weights | None:
        """The weights at `path` if these very `files` have been checked before, and nothing has changed since."""
        with self._lock:
            entry = self._read()["checked"].get(str(path))
        if not isinstance(entry, dict):
            return None
        try:
            if entry["marks"] != self.marks(files):
                return None
            return Weights(path, int(entry["bytes"]), tuple(map(str, entry["special"])))
        except (OSError, KeyError, TypeError, ValueError):
            return None

    @staticmethod
    def marks(files: Sequence[Path]) -> Marks:
        """How `files` look now: take it BEFORE a check, so that a change during it is not missed. Raises OSError."""
        marks: Marks = []
        for file in files:
            found = file.stat()
            target = str(file.readlink()) if file.is_symlink() else ""
            marks.append([file.name, target, found.st_size, found.st_mtime_ns, found.st_ino])
        return marks

    def remember(self, weights: Weights, marks: Marks) -> None:
        """Note that `weights`, whose files looked like `marks`, have been checked."""
        with self._lock:
            checked = self._read()["checked"]
            checked.pop(str(weights.path), None)
            checked[str(weights.path)] = {
                "at": utc_now(),
                "bytes": weights.weights_bytes,
                "special": list(weights.special_tokens),
                "marks": marks,
            }
            for path in list(checked)[:-KEPT]:
                del checked[path]
            self._write()

    def checked_at(self, path: Path) -> str | None:
        """When the weights at `path` were checked last, changed since or not."""
        with self._lock:
            entry = self._read()["checked"].get(str(path))
        return str(entry["at"]) if isinstance(entry, dict) and "at" in entry else None

    @property
    def rate(self) -> float | None:
        """Bytes a second of the last download that took long enough to tell."""
        with self._lock:
            found = self._read().get("rate")
        return float(found) if isinstance(found, int | float) and found > 0 else None

    @rate.setter
    def rate(self, rate: float) -> None:
        with self._lock:
            self._read()["rate"] = round(rate)
            self._write()

    def _read(self) -> dict[str, Any]:
        if self._content is None:
            self._content = {"version": VERSION, "checked": {}}
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found = json.loads(self._path.read_bytes())
                if found["version"] == VERSION and isinstance(found["checked"], dict):
                    self._content = found
        return self._content

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # it only saves time
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps(self._content).encode())
