"""The report as a file: written whole or not at all, and shown in the browser."""

from __future__ import annotations

import tempfile
import webbrowser
from pathlib import Path

from autotuned.shared import files


def write(file: str | None, html: str) -> str:
    """Write the page, replacing a file of that name; a temporary one where none is named. Its path. Raises OSError."""
    if file is None:
        folder = tempfile.mkdtemp(prefix="autotuned-report-")
        file = f"{folder}/report.html"
    path = Path(file).expanduser().resolve()  # a link stays, what it points at is replaced
    if path.is_dir():
        raise IsADirectoryError(None, "it is a folder")
    files.write_atomic(path, html.encode(), None)
    return str(path)


def show(path: str) -> bool:
    """Open the page in the operator's browser; False where there is none."""
    return webbrowser.open(Path(path).as_uri())
