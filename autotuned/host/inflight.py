"""Which candidate runs now, on the disk before it starts: a machine that goes down with it leaves this behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuned.host.files import write_atomic
from autotuned.shared.files import sync_folder
from autotuned.shared.identity import boot_id

UNKNOWN = "unknown"


class Inflight:
    """The record of one home. It goes when the candidate is stopped, and with the agent's orderly end."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._path = folder / "inflight.json"
        self._boot = boot_id(environ)
        self._closed = False

    def begin(self, record: Mapping[str, object]) -> None:
        """Write down what is to be started; on the disk itself when this returns. Raises OSError."""
        if not self._closed:
            text = json.dumps({**record, "boot_id": self._boot}, ensure_ascii=False)
            write_atomic(self._path, text.encode())

    def end(self) -> None:
        """It is stopped. Idempotent. Raises OSError."""
        if self._path.exists():
            self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)

    def close(self) -> None:
        """An orderly end, of this agent or of the machine: whatever follows is no candidate's doing. Idempotent."""
        self._closed = True
        self.end()

    def left(self) -> tuple[dict[str, Any], str] | None:
        """What ran when the machine went down, and the boot that it is in now; None where it did not go down."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            before = record["boot_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        same = UNKNOWN in (before, self._boot) or before == self._boot
        return None if same else (record, self._boot)
