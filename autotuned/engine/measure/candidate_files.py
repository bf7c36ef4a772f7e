"""The files of a candidate: its private configuration, how its log is named, and where a reason is looked for."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from autotuned.providers.interface import Provider

LOG_PART_BYTES = 256 * 1024
"""Of a long provider log the first and the last part of this size are searched for the reason."""


def log_name(number: int, stage: int, model: str) -> str:
    """A file name of at most 100 bytes for a trial's provider log; model ids can be long paths."""
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rsplit("/", 1)[-1]).strip("-.")[:60] or "model"
    return f"{number:03d}-stage{stage}-{word}-{digest}.log"


def read_log(path: Path) -> str:
    """Its beginning and its end; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            text = file.read(LOG_PART_BYTES)
            if size > LOG_PART_BYTES:
                file.seek(max(LOG_PART_BYTES, size - LOG_PART_BYTES))
                text += b"\n" + file.read(LOG_PART_BYTES)
            return text.decode("utf-8", errors="replace")
    except OSError:
        return ""


def with_telling_line(reason: str, provider: Provider, log: Path) -> str:
    """`reason`, and the line of the candidate's log that says best why it failed."""
    line = provider.telling_line(read_log(log))
    return f"{reason}: {line}" if line else reason


def write_private(path: Path, text: str) -> None:
    """Write a new file that nobody else can read, in place of an older one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
