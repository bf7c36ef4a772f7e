"""The machine's noise: what repeated starts tell, and when a winner stands clear of its runner-up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from autotuned.core import noise
from autotuned.core.model import STAGE_CLIMB, Failure, FailureKind, Replicate, Trial
from autotuned.core.pipeline import Evaluate, Finish, next_step, with_kept
from autotuned.core.plan import Repeats
from autotuned.documents.noise import MeasuredDocument
from autotuned.shared.knobs import Knobs
from tests.core.worlds import MISSED, cell, planned, probe

A, B = Knobs(8, 1, 2000), Knobs(4, 1, 2000)
WHICH = noise.Measurement("n1", "r1", "2026-01-31T03:30:00Z")
GATE = 8000.0


def start(
    knobs: Knobs, *tps: float, ttft: Sequence[float] = (100.0,), failure: Failure | None = None
) -> Trial:
    """One start of a cell with these requests."""
    replicates = tuple(
        Replicate(tps=value, ttft_ms=ttft[index % len(ttft)]) for index, value in enumerate(tps)
    )
    middle = sorted(tps)[len(tps) // 2] if tps else None
    return Trial(STAGE_CLIMB, "m", 1, knobs, replicates, failure, middle, max(ttft), kept=False)


def pairs(
    count: int, *, lead: float, spread: float, later: float = 0.0, seed: int = 1
) -> list[Trial]:
    """So many `a b b a`, `a` faster by `lead`, starts that stray by `spread`; a second start faster by `later`."""
    source, made = random.Random(seed), []
    for _ in range(count):
        for place, knobs in enumerate((A, B, B, A)):
            speed = 10.0 * (1 + lead if knobs == A else 1) * (1 + later if place % 2 else 1)
            level = speed * source.gauss(1, spread)
            made.append(start(knobs, *(level * source.gauss(1, spread / 10) for _ in range(3))))
    return made


def measured(history: Sequence[Trial], pair: Sequence[Knobs] = (A, B, B, A)) -> MeasuredDocument:
    return noise.of_pairs(history, pair, GATE, 0.02, WHICH)


def test_a_lead_that_starts_do_not_explain_stands_clear_and_a_smaller_one_is_a_tie() -> None:
    clear = measured(pairs(10, lead=0.05, spread=0.01))["lead"]
    assert clear is not None
    assert clear["verdict"] == "clear"
    assert clear["low"] is not None
    assert 0 < clear["low"] < 0.05 < (clear["high"] or 0)
    tie = measured(pairs(10, lead=0.0, spread=0.01))["lead"]
    assert tie is not None
    assert tie["verdict"] == "tie"
    other = measured(pairs(10, lead=-0.05, spread=0.01))["lead"]
    assert other is not None
    assert other["verdict"] == "runner-up is faster"
    few = measured(pairs(10, lead=0.05, spread=0.01)[:2])["lead"]
    assert few is not None
    assert few["verdict"] == "cannot tell"


def test_the_smallest_difference_is_what_two_equal_cells_exceed_in_one_of_ten_cases() -> None:
    found = measured(pairs(10, lead=0.05, spread=0.01))
    assert found["pairs"] == 10
    assert found["degrees_of_freedom"] == 38
    assert found["smallest_difference"] is not None
    source, beyond = random.Random(2), 0
    for _ in range(2000):
        beyond += (
            abs(source.gauss(1, 0.01) / source.gauss(1, 0.01) - 1) > found["smallest_difference"]
        )
    assert 0.04 < beyond / 2000 < 0.2
    assert found["smallest_difference_tps"] == pytest.approx(
        found["smallest_difference"] * found["tps"][0]
    )
    told = {entry["replicates"]: entry["relative"] for entry in found["tells"]}
    assert told[3] == pytest.approx(found["smallest_difference"])
    assert told[1] > told[3] > told[5] > told[10] > 0


def test_requests_of_one_start_stray_less_than_starts() -> None:
    found = measured(pairs(10, lead=0.0, spread=0.02))
    assert found["request_spread"] == pytest.approx(0.002, rel=0.3)
    assert found["start_spread"] == pytest.approx(0.02, rel=0.3)
    assert found["replicates"] == 3


def test_a_drift_in_time_is_told_and_falls_out_of_the_lead() -> None:
    found = measured(pairs(10, lead=0.03, spread=0.001, later=-0.1))
    assert found["order"]["later"] == pytest.approx(-0.1, abs=0.003)
    assert found["order"]["later_low"] is not None
    assert found["order"]["later_high"] is not None
    assert found["order"]["later_low"] < -0.1 < found["order"]["later_high"]
    assert found["lead"] is not None
    assert found["lead"]["relative"] == pytest.approx(0.03, abs=0.01)
    # The first of each order wins: all pairs come to another winner in reverse
    assert (found["order"]["mismatching"], found["order"]["biased"]) == (10, True)
    steady = measured(pairs(10, lead=0.1, spread=0.001))["order"]
    assert (steady["mismatching"], steady["biased"]) == (0, False)


def test_one_cell_alone_is_held_against_itself() -> None:
    assert noise.layout(A, None) == (A, A)
    assert noise.layout(A, B) == (A, B, B, A)
    history = [start(A, 10.0), start(A, 10.1), start(A, 10.0), start(A, 11.0)]
    found = measured(history, (A, A))
    assert found["lead"] is None
    assert (found["pairs"], found["order"]["mismatching"], found["order"]["biased"]) == (
        2,
        1,
        False,
    )
    assert found["order"]["later_low"] is None


def test_a_measurement_that_was_cut_off_tells_what_it_has() -> None:
    nothing = measured([])
    assert (nothing["pairs"], nothing["replicates"], nothing["tells"]) == (0, 0, [])
    assert nothing["lead"] is None
    assert nothing["smallest_difference"] is None
    assert nothing["smallest_difference_tps"] is None
    assert nothing["order"]["later"] is None
    assert nothing["probes"]["false_fit_rate"] is nothing["probes"]["false_reject_rate"] is None
    cut = measured(pairs(2, lead=0.05, spread=0.01)[:6])
    assert cut["pairs"] == 1
    failed = [start(A, 10.0), start(B, failure=MISSED), start(B, 9.0), start(A, 10.0)]
    found = measured(failed)
    assert found["pairs"] == 0
    assert found["probes"]["count"] == 3


def test_one_shot_probes_err_where_the_first_request_is_not_like_the_others() -> None:
    slow, quick = 9000.0, 100.0
    missed = Failure(FailureKind.GATE, "missed")
    # A passes by all its requests, but its first one missed once; B fails, but its first one passed twice
    a = [start(A, *[10.0] * 30, ttft=(slow, *[quick] * 29), failure=missed), start(A, 10.0, 10.0)]
    b = [start(B, 10.0, 10.0, ttft=(quick, slow), failure=missed) for _ in range(2)]
    probes = measured([a[0], *b, a[1]])["probes"]
    assert (probes["count"], probes["false_fits"], probes["false_rejects"]) == (4, 2, 1)
    assert (probes["false_fit_rate"], probes["false_reject_rate"]) == (1.0, 0.5)
    broken = replace(a[1], replicates=(Replicate(error="x"),))
    assert measured([a[0], *b, broken])["probes"]["false_rejects"] == 0


def test_a_run_tells_whether_its_best_cell_stands_clear_of_the_runner_up() -> None:
    best, second = replace(start(A, 11.0, 11.1, 11.2), kept=True), start(B, 10.0, 10.1, 10.2)
    third = start(Knobs(None, 1, 2000), 9.0, 9.1, 9.2)
    found = noise.of_run([third, second, best])
    assert found["runner_up"] == B.published()
    assert found["lead"] is not None
    assert found["lead"]["verdict"] == "clear"
    assert found["degrees_of_freedom"] == 6
    alone = noise.of_run([best])
    assert alone.get("lead") is None
    assert alone["tps_relative_spread"] == pytest.approx(0.009009, abs=1e-5)
    single = replace(start(A, 11.0), kept=True)
    assert noise.of_run([single, start(B, 10.0)]) == {}
    broken = replace(second, replicates=(Replicate(error="x"),))
    assert noise.of_run([best, broken]).get("lead") is None
    silent = replace(best, replicates=(Replicate(error="x"),))
    assert noise.of_run([second, silent]).get("lead") is None


def test_a_repetition_keeps_nothing_and_ends_well_without_a_recommendation() -> None:
    plan = planned("a-7B")
    pair = noise.layout(plan.cells[0], plan.cells[1])
    plan = replace(plan, cells=pair * 2, repeats=Repeats("r1", 2))
    assert plan.together == 4
    assert planned("a-7B").together == 1
    history = [probe(plan, 1)]
    for index in range(8):
        step = next_step(plan, history)
        assert isinstance(step, Evaluate)
        assert step.knobs == pair[index % 4]
        history.append(with_kept(plan, history, cell(plan, 1, index)))
        assert not history[-1].kept
    end = next_step(plan, history)
    assert isinstance(end, Finish)
    assert (end.exit_reason, end.best, end.partial) == ("ok", None, False)
    failed = [probe(plan, 1), *(cell(plan, 1, index, failure=MISSED) for index in range(8))]
    assert next_step(plan, failed) == Finish(
        "no_feasible",  # type: ignore[arg-type]
        plan.candidates[0],
    )
