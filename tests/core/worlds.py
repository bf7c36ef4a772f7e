"""Values for tests of the core: plans, trials and replicates with only what a test is about spelt out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autotuned.core.model import (
    STAGE_CLIMB,
    STAGE_SELECTION,
    Failure,
    FailureKind,
    Replicate,
    Trial,
)
from autotuned.core.plan import Plan, plan
from autotuned.core.request import parse
from autotuned.shared.knobs import Knobs

MISSED = Failure(FailureKind.GATE, "TTFT p95 9 ms is above the gate of 8 ms")
GOOD = Replicate(ttft_ms=100.0, tps=10.0, total_ms=4800.0, prompt_tokens=1900, completion_tokens=48)


def planned(*models: str, **fields: Any) -> Plan:
    """The plan of a request for these models."""
    request = parse({"candidate_models": list(models), **fields})
    return plan(request, (), max_tokens=48, seed=1)


def probe(plan: Plan, rank: int, failure: Failure | None = None) -> Trial:
    """Candidate `rank` after its probe."""
    model = plan.candidates[rank - 1].model
    return Trial(STAGE_SELECTION, model, rank, None, (GOOD,), failure, 10.0, 100.0)


def cell(
    plan: Plan,
    rank: int,
    index: int,
    tps: float | None = 10.0,
    ttft: float | None = 100.0,
    failure: Failure | None = None,
) -> Trial:
    """Cell `index` of candidate `rank`, not yet judged against the best."""
    model = plan.candidates[rank - 1].model
    trial = Trial(STAGE_CLIMB, model, rank, plan.cells[index], (GOOD,), failure)
    return replace(trial, tps_median=tps, ttft_p95_ms=ttft)


def measured(tps: float | None, ttft: float | None = 100.0, *, fits: bool = True) -> Trial:
    """A cell of no plan."""
    failure = None if fits else MISSED
    return Trial(STAGE_CLIMB, "m", 1, Knobs(None, 1, 2000), (GOOD,), failure, tps, ttft)
