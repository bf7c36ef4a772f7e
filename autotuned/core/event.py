"""One thing that happened in a run, as it is published, kept and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """`seq` is dense over the agent's life, so that a gap shows loss; `ts` is UTC with `Z`."""

    seq: int
    ts: str
    run_id: str | None
    type: str
    fields: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """The flat object that subscribers get."""
        return {
            **self.fields,
            "seq": self.seq,
            "ts": self.ts,
            "run_id": self.run_id,
            "type": self.type,
        }
