"""Result documents as released versions wrote them, one of each ending: kept for ever, never edited.

A reader of ours must go on understanding them, and so must the published schema.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def stored(name: str) -> Any:
    """One of the kept documents, by the name of its file."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))


def names() -> list[str]:
    """All of them."""
    return sorted(path.stem for path in HERE.glob("*.json"))
