"""Whether a recipe still serves as it did: verdicts, and how often they are wrong."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autotuned.core import check
from autotuned.core.model import STAGE_CALIBRATION, STAGE_CLIMB, Replicate, Trial
from autotuned.core.pipeline import Evaluate, Finish, next_step, with_kept
from autotuned.core.plan import Repeats
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs
from tests.core.worlds import MISSED, planned

A, B = Knobs(8, 1, 2000), Knobs(None, 1, 2000)


def cell(*tps: float, knobs: Knobs = A, kept: bool = False) -> Trial:
    samples = tuple(Replicate(tps=each, ttft_ms=100.0) for each in tps)
    middle = sorted(tps)[len(tps) // 2]
    return Trial(STAGE_CLIMB, "m", 1, knobs, samples, None, middle, 100.0, kept=kept)


THEN = [cell(9.9, 10.0, 10.1, kept=True), cell(7.9, 8.0, 8.1, knobs=B)]


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (cell(9.95, 10.05, 10.0), "same"),
        (cell(9.0, 8.9, 9.1), "slower"),
        (cell(11.0, 10.9, 11.1), "faster"),
        (cell(9.85, 9.85, 9.85), "same"),
        (cell(10.15, 10.15, 10.15), "same"),
    ],
)
def test_one_start_is_judged_against_the_cell_it_had(now: Trial, verdict: str) -> None:
    document = check.judge("r1", THEN[0], now, THEN, None, 0.02)
    assert document["verdict"] == verdict
    assert document["interval"] is not None
    assert document["difference"] is not None
    assert document["interval"][0] < document["difference"] < document["interval"][1]


def test_the_noise_between_starts_widens_what_counts_as_the_same() -> None:
    now = cell(9.5, 9.4, 9.6)
    assert check.judge("r1", THEN[0], now, THEN, 0.002, 0.02)["verdict"] == "slower"
    assert check.judge("r1", THEN[0], now, THEN, 0.05, 0.02)["verdict"] == "same"


def test_a_disturbed_request_does_not_hide_a_loss() -> None:
    disturbed = [cell(9.9, 6.0, 10.1, kept=True), THEN[1]]
    document = check.judge("r1", disturbed[0], cell(8.5, 8.4, 8.6), disturbed, None, 0.02)
    assert document["verdict"] == "slower"


def test_several_at_once_are_judged_by_their_waves_however_unevenly_their_streams_ran() -> None:
    def waves(*each_ms: float) -> Trial:
        samples = tuple(
            Replicate(
                tps=48_000 / (took * share),
                total_ms=took * share,
                ttft_ms=100.0,
                completion_tokens=48,
                wave=number,
                stream=stream,
                sent_ms=0.0,
            )
            for number, took in enumerate(each_ms, start=1)
            for stream, share in ((1, 0.3), (2, 1.0))
        )
        return replace(cell(100.0), replicates=samples, concurrency=2, stage=STAGE_CALIBRATION)

    then = waves(1000.0, 1010.0, 990.0)
    assert check.judge("r1", then, waves(1005, 995, 1000), [then], None, 0.02)["verdict"] == "same"
    document = check.judge("r1", then, waves(1105, 1110, 1115), [then], None, 0.02)
    assert document["verdict"] == "slower"
    assert document["difference"] == pytest.approx(-0.099, abs=0.001)


def test_a_recipe_that_does_not_serve_fails_with_its_reason() -> None:
    failed = replace(cell(9.0), failure=MISSED)
    document = check.judge("r1", THEN[0], failed, THEN, None, 0.02)
    assert (document["verdict"], document["reason"]) == ("fails", MISSED.reason)
    assert document["difference"] is None
    silent = replace(cell(9.0), replicates=(Replicate(error="HTTP 500"),))
    assert check.judge("r1", THEN[0], silent, THEN, None, 0.02)["verdict"] == "fails"
    assert check.judge("r1", silent, THEN[0], THEN, None, 0.02)["verdict"] == "fails"


def test_single_requests_tell_only_what_is_large() -> None:
    alone = [cell(10.0, kept=True)]
    assert check.judge("r1", alone[0], cell(9.2), alone, None, 0.02)["verdict"] == "same"
    slower = check.judge("r1", alone[0], cell(8.0), alone, None, 0.02)
    assert (slower["verdict"], slower["interval"]) == ("slower", None)


def test_the_cell_of_a_recipe_is_the_one_that_was_kept_else_the_newest_that_fits() -> None:
    failed = replace(cell(1.0), failure=MISSED)
    assert check.cell_of([*THEN, failed], A) is THEN[0]
    assert check.cell_of([cell(9.0), newest := cell(9.5)], A) is newest
    assert check.cell_of(THEN, Knobs(4, 1, 2000)) is None


def test_false_alarms_are_rare_and_a_loss_of_a_tenth_is_found() -> None:
    source = random.Random(7)

    def measured(true: float, start: float) -> list[float]:
        middle = true * (1 + source.gauss(0, start))
        return [middle * (1 + source.gauss(0, 0.01)) for _ in range(3)]

    alarms = found = 0
    for _ in range(400):
        then = [cell(*measured(10, 0.01), kept=True), cell(*measured(8, 0.01), knobs=B)]
        same, lost = cell(*measured(10, 0.01)), cell(*measured(9, 0.01))
        alarms += check.judge("r", then[0], same, then, 0.01, 0.02)["verdict"] != "same"
        found += check.judge("r", then[0], lost, then, 0.01, 0.02)["verdict"] == "slower"
    assert alarms <= 20
    assert found >= 380


def test_a_check_is_one_start_without_a_probe_whatever_comes_of_it() -> None:
    plan = replace(planned("m-7B"), cells=(A,), repeats=Repeats("r1", 1, check=True))
    assert next_step(plan, []) == Evaluate(plan.candidates[0], 0, A)
    for now in (cell(9.0), replace(cell(9.0), failure=MISSED)):
        kept = with_kept(plan, [], now)
        assert not kept.kept
        assert next_step(plan, [kept]) == Finish(ExitReason.OK, plan.candidates[0])
