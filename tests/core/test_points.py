"""Stage 3 over planned servers: which points are asked for, what comes out, and from where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autotuned.core import points
from autotuned.core.model import (
    STAGE_CALIBRATION,
    Failure,
    FailureKind,
    PhaseTimings,
    Replicate,
    Trial,
)
from autotuned.core.pipeline import Finish, Halt, next_step
from autotuned.core.plan import Plan
from autotuned.core.points import Calibrate
from autotuned.core.result import explain, recommend
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs
from tests.core.worlds import cell, planned, probe

Server = Callable[[Calibrate], Trial]


def calibrating(**fields: Any) -> tuple[Plan, list[Trial]]:
    """A plan that calibrates, and its history up to the best cell."""
    one = {"kv_bits_axis": [None], "max_batch_axis": [1], "gate_ttft_ms": 4000}
    plan = planned("m", **{**one, **fields})
    best = replace(cell(plan, 1, 0), kept=True)
    return plan, [probe(plan, 1), best]


def carried_through(plan: Plan, history: list[Trial], server: Server) -> Finish:
    """Measure until the run is over."""
    while not isinstance(step := next_step(plan, history), Finish):
        assert isinstance(step, Calibrate)
        history.append(server(step))
        assert len(history) < 40
    return step


def measured(step: Calibrate, ttft_ms: list[float], ceiling_ms: float = 4000) -> Trial:
    """A point whose streams had their first token then; those beyond the ceiling had none."""
    several = step.concurrency > 1
    late = max(ttft_ms) > ceiling_ms
    streams = tuple(
        Replicate(error="no token", gate_missed=True, wave=1, stream=number)
        if ttft > ceiling_ms
        else Replicate(
            error="ended with its wave" if late else None,
            ttft_ms=ttft,
            tps=20.0,
            total_ms=2400.0,
            completion_tokens=48,
            wave=1 if several else None,
            stream=number if several else None,
        )
        for number, ttft in enumerate(ttft_ms, start=1)
    )
    failure = Failure(FailureKind.GATE, "no token within the gate of 4000 ms") if late else None
    return Trial(
        stage=STAGE_CALIBRATION,
        model=step.candidate.model,
        rank=1,
        knobs=step.knobs,
        replicates=streams,
        failure=failure,
        tps_median=None if late else 20.0 * min(step.concurrency, 4),
        ttft_p95_ms=None if late else max(ttft_ms),
        concurrency=step.concurrency,
        calibrates=step.calibrates,
        context=step.context,
        confirms=step.confirms,
    )


def prefills(step: Calibrate) -> Trial:
    """A prompt token takes 0.1 ms, one prompt after the other."""
    each = step.context / 10
    return measured(step, [each * number for number in range(1, step.concurrency + 1)])


def test_both_are_calibrated_one_after_the_other_and_make_the_recipe() -> None:
    fields = {"target_context": 4000, "calibrate_context": True, "calibrate_concurrency": True}
    plan, history = calibrating(**fields, context_ceiling=20_000, ttft_ceiling_ms=2000)
    finish = carried_through(plan, history, lambda step: measured_under(step, 2000))
    assert finish.exit_reason is ExitReason.OK
    assert finish.recipe == Knobs(None, 1, 20_000)
    found = points.document(plan, history, Knobs(None, 1, 4000))
    assert found["context"] is not None
    assert found["concurrency"] is not None
    assert (found["context"]["answer"], found["context"]["bound"]) == (20_000, 20_000)
    assert [point["context"] for point in found["context"]["points"]] == [
        4000,
        8000,
        16_000,
        20_000,
        20_000,
    ]
    assert (found["concurrency"]["largest"], found["concurrency"]["recommended"]) == (1, 1)
    assert found["concurrency"]["ceiling_ms"] == 2000
    starts = {trial.knobs.max_context for trial in history[2:7] if trial.knobs is not None}
    assert starts == {20_000}  # one start serves them all
    answer = recommend("r", plan, finish)
    assert answer is not None
    assert answer["knobs"]["max_context_override"] == 20_000


def measured_under(step: Calibrate, ceiling_ms: float) -> Trial:
    each = step.context / 10
    ttft_ms = [each * number for number in range(1, step.concurrency + 1)]
    return measured(step, ttft_ms, ceiling_ms)


def test_the_largest_and_the_useful_concurrency_are_both_found() -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)
    finish = carried_through(plan, history, prefills)
    found = points.document(plan, history, Knobs(None, 1, 4000))["concurrency"]
    assert found is not None
    assert (found["largest"], found["recommended"]) == (10, 4)
    assert finish.recipe == Knobs(None, 4, 4000)
    assert points.bracket(plan, history) == {
        "calibrates": "concurrency",
        "points": len(found["points"]),
        "passes": 10,
        "fails": 11,
    }


def test_a_wave_that_came_too_late_has_no_time_of_those_that_came() -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)

    def answers(step: Calibrate) -> Trial:
        trial = prefills(step)
        return trial if trial.fits else replace(trial, ttft_p95_ms=34.0)

    carried_through(plan, history, answers)
    found = points.document(plan, history, Knobs(None, 1, 4000))["concurrency"]
    assert found is not None
    late = [point for point in found["points"] if not point["passes"]]
    assert [point["ttft_p95_ms"] for point in late] == [None] * len(late)
    assert late


def test_the_models_own_window_bounds_the_context() -> None:
    plan, history = calibrating(target_context=4000, calibrate_context=True)
    finish = carried_through(replace(plan, window=8192), history, prefills)
    assert finish.recipe == Knobs(None, 1, 8000)


def test_where_the_target_itself_misses_the_ceiling_the_best_cell_stands() -> None:
    plan, history = calibrating(
        target_context=4000, calibrate_context=True, calibrate_concurrency=True, ttft_ceiling_ms=300
    )
    finish = carried_through(plan, history, lambda step: measured_under(step, 300))
    assert finish.recipe == Knobs(None, 1, 4000)
    found = points.document(plan, history, Knobs(None, 1, 4000))
    assert found["context"] is not None
    assert found["concurrency"] is not None
    assert (found["context"]["answer"], found["concurrency"]["largest"]) == (None, None)


def test_a_start_that_fails_with_the_upper_bound_halves_it() -> None:
    plan, history = calibrating(target_context=4000, calibrate_context=True, context_ceiling=64_000)

    def small(step: Calibrate) -> Trial:
        if step.knobs.max_context <= 20_000:
            return prefills(step)
        failure = Failure(FailureKind.MEMORY, "memory pressure critical")
        spent = PhaseTimings(load_ms=5.0)
        return replace(measured(step, [1.0]), replicates=(), failure=failure, spent=spent)

    assert carried_through(plan, history, small).recipe == Knobs(None, 1, 16_000)
    found = points.document(plan, history, Knobs(None, 1, 4000))["context"]
    assert found is not None
    tried = [(point["context"], point["passes"]) for point in found["points"]]
    assert tried[:3] == [(64_000, False), (32_000, False), (4000, True)]
    left = points.bracket(plan, history)
    assert left is not None
    assert (left["passes"], left["fails"]) == (16_000, 32_000)


@pytest.mark.parametrize(
    ("plan_of", "best", "reason"),
    [
        (lambda plan: replace(plan, single_stream=True), Knobs(None, 2, 4000), "this server"),
        (lambda plan: plan, Knobs(None, 2, 4000, (("draft_model", "d"),)), "draft_model d serves"),
    ],
)
def test_what_serves_one_at_a_time_is_pinned_to_one(
    plan_of: Callable[[Plan], Plan], best: Knobs, reason: str
) -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)
    plan = plan_of(plan)
    history[1] = replace(history[1], knobs=best)
    finish = carried_through(plan, history, prefills)
    found = points.document(plan, history, best)["concurrency"]
    assert found is not None
    assert (found["largest"], found["recommended"]) == (1, 1)
    assert [point["concurrency"] for point in found["points"]] == [1]
    assert found["reason"].startswith(reason)
    assert finish.recipe == best._replace(max_batch=1)


def starts_with(step: Calibrate) -> int:
    return step.knobs.max_batch if step.slots is None else step.slots


def test_a_server_whose_slots_can_be_had_at_once_is_started_with_all_of_them() -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)
    plan = replace(plan, slots_at_once=True)
    asked: list[Calibrate] = []

    def server(step: Calibrate) -> Trial:
        asked.append(step)
        return prefills(step)

    finish = carried_through(plan, history, server)
    assert {starts_with(step) for step in asked} == {32}
    assert all(step.knobs.max_batch == step.concurrency for step in asked)
    assert finish.recipe == Knobs(None, 4, 4000)
    assert finish.served is not None
    assert finish.served.concurrency == 4


@pytest.mark.parametrize(
    "failure",
    [
        Failure(FailureKind.START, "exited during load with code 1"),
        Failure(FailureKind.QUARANTINE, "the machine went down while it ran"),
    ],
    ids=lambda failure: failure.kind,
)
def test_where_it_does_not_start_with_all_slots_each_point_gets_its_own(failure: Failure) -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)
    plan = replace(plan, slots_at_once=True)

    def small(step: Calibrate) -> Trial:
        if starts_with(step) <= 16:
            return prefills(step)
        spent = PhaseTimings(load_ms=5.0 if failure.kind is FailureKind.START else None)
        return replace(prefills(step), replicates=(), failure=failure, spent=spent)

    finish = carried_through(plan, history, small)
    found = points.document(plan, history, Knobs(None, 1, 4000))["concurrency"]
    assert found is not None
    assert (found["largest"], found["recommended"]) == (10, 4)
    assert found["points"][0]["reason"] == failure.reason
    assert finish.recipe == Knobs(None, 4, 4000)


def test_only_numbers_of_slots_that_a_server_can_have_are_started() -> None:
    plan, history = calibrating(target_context=4000, calibrate_concurrency=True)
    plan = replace(plan, batches=(1, 2, 8))
    finish = carried_through(plan, history, prefills)
    found = points.document(plan, history, Knobs(None, 1, 4000))["concurrency"]
    assert found is not None
    assert (found["largest"], found["recommended"]) == (8, 4)
    assert {trial.knobs.max_batch for trial in history[2:] if trial.knobs} == {1, 2, 8}
    assert finish.recipe == Knobs(None, 8, 4000)
    assert finish.served is not None
    assert finish.served.concurrency == 4


def test_cut_short_the_best_cell_stands_and_the_reason_says_where() -> None:
    plan, history = calibrating(
        target_context=4000, calibrate_context=True, calibrate_concurrency=True
    )
    while not (isinstance(step := next_step(plan, history), Calibrate) and step.concurrency == 2):
        assert isinstance(step, Calibrate)
        history.append(prefills(step))
    cut = replace(prefills(step), failure=Failure(FailureKind.BUDGET, "budget exhausted"))
    history.append(cut)
    finish = next_step(plan, history, Halt.BUDGET)
    assert isinstance(finish, Finish)
    assert (finish.partial, finish.recipe) == (True, Knobs(None, 1, 4000))
    error = explain(plan, history, finish)
    assert error is not None
    assert "while the concurrency was calibrated" in error["message"]
    assert next_step(plan, history[:-1]) == next_step(plan, history)  # it goes on as if never cut
    found = points.document(plan, history, Knobs(None, 1, 4000))
    assert found["concurrency"] is not None
    assert found["concurrency"]["largest"] is None
    assert [point["concurrency"] for point in found["concurrency"]["points"]] == [1]


def test_nothing_is_calibrated_that_was_not_asked_for() -> None:
    plan, history = calibrating()
    finish = next_step(plan, history)
    assert isinstance(finish, Finish)
    assert finish.recipe == Knobs(None, 1, 2000)
    assert points.bracket(plan, history) is None
    assert points.document(plan, history, None) == {"context": None, "concurrency": None}
    assert Finish(ExitReason.NO_FEASIBLE).recipe is None
    assert recommend("r", plan, Finish(ExitReason.NO_FEASIBLE)) is None
    odd = [history[0], replace(history[1], knobs=None)]
    assert next_step(plan, odd) == Finish(ExitReason.OK, plan.candidates[0], odd[1])


def test_before_the_first_best_cell_only_the_contexts_are_known() -> None:
    plan, _ = calibrating(target_context=4000, calibrate_context=True, calibrate_concurrency=True)
    found = points.document(plan, [], None)
    assert found["context"] is not None
    assert (found["context"]["answer"], found["concurrency"]) == (None, None)
