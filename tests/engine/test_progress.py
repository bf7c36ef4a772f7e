"""When a run may be over: told from the start where something like it was measured, and by the best that is known."""

from __future__ import annotations

from typing import Any

from autotuned.core.model import Failure, FailureKind, PhaseTimings, Replicate, Trial
from autotuned.core.plan import plan
from autotuned.core.request import TuneRequest
from autotuned.engine.run.progress import Progress


def progress(**fields: Any) -> Progress:
    request = TuneRequest(candidate_models=("acme/big-32B", "acme/small-1B"), max_duration=1000.0)
    planned = plan(request, (), 48, 1)
    assert len(planned.cells) == 2 * 3
    return Progress(planned, 0.0, lambda: 100.0, **fields)


def probe(failure: Failure | None = None) -> Trial:
    spent = PhaseTimings(None, 900_000.0, 4000.0, 1000.0, 2000.0, 500.0)
    return Trial(1, "acme/big-32B", 1, None, (Replicate(),), failure, None, None, spent=spent)


def eta(of: Progress) -> Any:
    return of.document()["eta_s"]


def test_nothing_like_it_was_measured_so_the_end_is_not_known() -> None:
    assert eta(progress()) is None


def test_from_the_start_the_last_run_tells_of_a_probe_and_every_cell() -> None:
    assert eta(progress(cell_s=10.0)) == 70.0


def test_the_budget_ends_it_at_the_latest() -> None:
    assert eta(progress(cell_s=10_000.0)) == 900.0


def test_a_probe_that_passed_tells_of_the_cells_without_its_download() -> None:
    learnt = progress(cell_s=500.0)
    learnt.learn(probe(Failure(FailureKind.START, "no")))
    assert learnt.cell_s == 500.0
    learnt.learn(probe())
    learnt.stage, learnt.cell = 2, 1
    assert learnt.cell_s == 4 + 1 + 0.5 + 3 * 2
    assert eta(learnt) == 6 * 11.5


def test_measured_cells_tell_best_and_it_counts_down_within_one() -> None:
    measured = progress(cell_s=500.0, cells_seconds=[10.0, 20.0])
    measured.stage, measured.cell, measured.replicates = 2, 3, 3
    assert eta(measured) == 60.0
    measured.replicate = 1
    assert eta(measured) == 55.0
    measured.cell, measured.replicate = 6, 3
    assert eta(measured) == 0.0
