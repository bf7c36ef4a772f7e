"""The report as a file: written whole or not at all, and shown in the browser."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import webbrowser
from pathlib import Path


def write(file: str | None, html: str) -> str:
    """Write the page, replacing a file of that name; a temporary one where none is named. Its path. Raises OSError."""
    if file is None:
        folder = tempfile.mkdtemp(prefix="autotuned-report-")
        file = f"{folder}/report.html"
    path = Path(file).expanduser().resolve()  # a link stays, what it points at is replaced
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8") as output:
            output.write(html)
            output.flush()
            os.fsync(output.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return str(path)


def show(path: str) -> bool:
    """Open the page in the operator's browser; False where there is none."""
    return webbrowser.open(Path(path).as_uri())
