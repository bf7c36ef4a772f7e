"""Going on with a run that was cut off: its request, its stored trials, and whether they still hold.

The store is what a run knows, so a resumed run takes the same steps as one that was never interrupted.
That is true only for the same machine, binary and request: anything else is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from autotuned.core.model import MachineFacts
from autotuned.core.plan import Plan
from autotuned.core.request import TuneRequest
from autotuned.documents.result import ExitReason
from autotuned.engine.run.records import Records
from autotuned.errors import ConfigError, NotFound
from autotuned.store.runs import RunRow, Which

FIELD, LATEST = "resume", "latest"
CUT_OFF = (
    ExitReason.INTERRUPTED,
    ExitReason.BUDGET_NONE,
    ExitReason.BUDGET_PARTIAL,
    ExitReason.INTERNAL_ERROR,
)
"""How a run ends that had more to do."""
OF_THE_START = frozenset(
    {
        "resume",
        "max_duration",
        "drain",
        "drain_grace",
        "restart_foreground",
        "apply",
        "port",
        "retain_runs",
        "trigger",
        "verify",
        "ignore_quarantine",
    }
)
"""What may differ from the first start: none of it changes what is measured, or in which order."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run to go on with; `request` is that of its first start with what the new start may change."""

    row: RunRow
    request: TuneRequest
    max_tokens: int | None

    def check(self, facts: MachineFacts, binary_version: str, plan: Plan, max_tokens: int) -> None:
        """Raise ConfigError where its trials would not hold today."""
        now = {
            "binary": (self.row.binary_version, binary_version),
            "chip": (self.row.machine_chip, facts.chip),
            "memory": (self.row.machine_ram_gb, facts.ram_gb),
            "OS": (self.row.machine_os_version, facts.os_version),
            "answer length": (self.max_tokens or max_tokens, max_tokens),
            "candidates": (
                json.loads(self.row.candidate_models_json),
                [candidate.model for candidate in plan.candidates],
            ),
        }
        for name, (then, today) in now.items():
            if then != today:
                rule = f"was measured with another {name} ({then}, now {today}): start a new run"
                raise ConfigError(FIELD, self.row.run_id, rule)


async def take_up(
    records: Records, asked: TuneRequest, params: Mapping[str, object]
) -> Resumed | None:
    """The run that `asked` wants to go on with, made of these `params`; None where it wants a new one.

    Raises ConfigError for a run that has ended by itself, or a parameter that differs from its own.
    """
    if asked.resume is None:
        return None
    row = await _find(records, asked.resume)
    if ExitReason(row.exit_reason) not in CUT_OFF:
        rule = f"ended as {row.exit_reason}: there is nothing to go on with"
        raise ConfigError(FIELD, row.run_id, rule)
    if row.purpose in ("noise", "check"):
        rule = f"is no search: autotunectl {row.purpose}"
        raise ConfigError(FIELD, row.run_id, rule)
    details = await records.details(row.run_id)
    if "request" not in details:
        raise ConfigError(FIELD, row.run_id, "does not say what was asked for: start a new run")
    stored: dict[str, object] = details["request"]
    first = TuneRequest.model_validate({**stored, "resume": None, "seed": details.get("seed")})
    for name in params:
        given, before = getattr(asked, name), getattr(first, name)
        if name not in OF_THE_START and given != before:
            rule = f"differs from run {row.run_id}, which had {before!r}: start a new run"
            raise ConfigError(name, given, rule)
    changed = {name: getattr(asked, name) for name in params if name in OF_THE_START}
    request = first.model_copy(update={**changed, "resume": None})
    return Resumed(row, request, details.get("max_tokens"))


async def _find(records: Records, run_id: str) -> RunRow:
    if run_id != LATEST:
        try:
            return await records.row(run_id)
        except NotFound:
            raise ConfigError(FIELD, run_id, "is no run: see autotunectl runs") from None
    for row in await records.recent(1000, None, Which.SEARCHED):
        if ExitReason(row.exit_reason) in CUT_OFF:
            return row
    raise ConfigError(FIELD, run_id, "finds no run that was cut off")
