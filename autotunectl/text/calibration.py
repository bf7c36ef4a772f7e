"""What is calibrated, as text: the answer in one line, and how far the search for it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def load_line(document: Mapping[str, Any]) -> str | None:
    """What was calibrated: `serves 4 at once at 6,000 tokens (largest 9; beyond 4 nothing is gained)`."""
    found = document.get("calibration") or {}
    context, several = found.get("context") or {}, found.get("concurrency") or {}
    tokens = context.get("answer") or document["inputs"]["target_context"]
    best, largest = several.get("recommended"), several.get("largest")
    if best is None:
        if context.get("answer") is None:
            return None
        return f"serves up to {tokens:,} tokens with its first token within {context['ceiling_ms']:,} ms"
    more = several.get("reason") or (
        "no more pass" if best == largest else f"largest {largest}; beyond {best} nothing is gained"
    )
    return f"serves {best} at once at {tokens:,} tokens ({more})"


def bracket(calibration: Mapping[str, Any]) -> str:
    """How far a calibration is: `context: 24,000 passes, 32,000 does not`."""
    if not calibration:
        return "calibrating"
    passes, fails = calibration.get("passes"), calibration.get("fails")
    known = [
        *([] if passes is None else [f"{passes:,} passes"]),
        *([] if fails is None else [f"{fails:,} does not"]),
    ]
    return f"{calibration['calibrates']}: {', '.join(known)}"
