"""The winner of a climb against the defaults and the live recipe: whom it meets, and who is recommended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotuned.core import confirm
from autotuned.core.model import STAGE_CLIMB, STAGE_CONFIRM, Replicate, Trial
from autotuned.core.pipeline import Confirm, Finish, next_step
from autotuned.core.plan import Plan
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs
from tests.core.worlds import MISSED, planned, probe

WINNER, DEFAULTS, LIVE = Knobs(8, 2, 2000), Knobs(None, 1, 2000), Knobs(4, 1, 4000)


def climbed(live: Knobs | None = None, **fields: object) -> tuple[Plan, list[Trial]]:
    """A plan that confirms, and its history after the climb: the one cell has won."""
    axes = {"kv_bits_axis": [8], "max_batch_axis": [2], "confirm": True, **fields}
    plan = replace(planned("m-7B", **axes), live_recipe=live and ("M-7b", live))
    won = replace(start(WINNER, 10.0), stage=STAGE_CLIMB, kept=True)
    return plan, [probe(plan, 1), won]


def start(knobs: Knobs | None, tps: float, *, fits: bool = True) -> Trial:
    """One start of three requests, of the given rate on average."""
    samples = tuple(Replicate(tps=tps + off, ttft_ms=100.0) for off in (-0.05, 0.0, 0.05))
    failure = None if fits else MISSED
    return Trial(STAGE_CONFIRM, "m-7B", 1, knobs, samples, failure, tps, 100.0)


def carried(plan: Plan, history: list[Trial], **rates: float) -> tuple[Finish, list[Knobs]]:
    """To the end of the run, with these tokens per second of each side."""
    known = {WINNER: rates["winner"], DEFAULTS: rates["defaults"], LIVE: rates.get("live", 0.0)}
    started = []
    while isinstance(step := next_step(plan, history), Confirm):
        started.append(step.knobs)
        history.append(start(step.knobs, known[step.knobs]))
    assert isinstance(step, Finish)
    return step, started


def test_each_opponent_is_met_in_turns_and_a_winner_that_is_faster_stays() -> None:
    plan, history = climbed(LIVE)
    finish, started = carried(plan, history, winner=10.0, defaults=9.0, live=8.0)
    assert started == [WINNER, DEFAULTS, DEFAULTS, WINNER, WINNER, LIVE, LIVE, WINNER]
    assert (finish.exit_reason, finish.best) == (ExitReason.OK, history[1])
    _, meeting = confirm.confirmed(plan, history, history[1])
    assert meeting is not None
    assert (meeting["against"], meeting["verdict"]) == ("defaults", "better")
    assert meeting["interval"] is not None
    assert meeting["interval"][0] < meeting["difference"] < meeting["interval"][1]
    assert confirm.words(WINNER, meeting) == []


@pytest.mark.parametrize(
    ("rates", "recommended", "against", "verdict"),
    [
        ({"winner": 10.0, "defaults": 10.0, "live": 8.0}, DEFAULTS, "defaults", "tie"),
        ({"winner": 10.0, "defaults": 9.0, "live": 10.1}, LIVE, "live", "tie"),
        ({"winner": 10.0, "defaults": 10.0, "live": 10.1}, DEFAULTS, "defaults", "tie"),
        ({"winner": 10.0, "defaults": 12.0, "live": 8.0}, DEFAULTS, "defaults", "worse"),
        ({"winner": 10.0, "defaults": 12.0, "live": 13.0}, LIVE, "live", "worse"),
    ],
)
def test_a_tie_recommends_the_simpler_one_and_a_loss_the_better_one(
    rates: dict[str, float], recommended: Knobs, against: str, verdict: str
) -> None:
    plan, history = climbed(LIVE)
    finish, _ = carried(plan, history, **rates)
    assert finish.best is not None
    assert finish.best.knobs == recommended
    assert len(finish.best.replicates) == 6
    assert finish.best.tps_median == pytest.approx(rates[against])
    _, meeting = confirm.confirmed(plan, history, history[1])
    assert meeting is not None
    assert (meeting["against"], meeting["verdict"]) == (against, verdict)
    (sentence,) = confirm.words(WINNER, meeting)
    assert sentence.endswith("recommended instead")
    assert ("lost to" in sentence) is (verdict == "worse")


def test_an_opponent_that_was_a_cell_is_recommended_as_that_cell() -> None:
    plan, history = climbed()
    own = replace(start(DEFAULTS, 9.9), stage=STAGE_CLIMB)
    finish, _ = carried(plan, [history[0], own, history[1]], winner=10.0, defaults=10.0)
    assert finish.best == own


def test_without_an_opponent_or_the_wish_there_is_no_meeting() -> None:
    plan, history = climbed(confirm=False)
    assert isinstance(next_step(plan, history), Finish)
    plan, history = climbed(DEFAULTS)
    simplest = replace(history[1], knobs=DEFAULTS)
    assert confirm.next_knobs(plan, history, simplest) is None
    assert confirm.confirmed(plan, history, simplest) == (simplest, None)
    assert list(confirm.opponents(plan, history[1])) == ["defaults"]
    other = replace(plan, live_recipe=("other-7B", LIVE))
    assert list(confirm.opponents(other, history[1])) == ["defaults"]


def test_of_a_server_with_knobs_of_its_own_the_defaults_leave_all_of_them_unset() -> None:
    plan, history = climbed(DEFAULTS)
    axes = {"threads": (None, 2), "mmap": (None, True)}
    plan = replace(plan, request=plan.request.model_copy(update={"axes": axes}))
    unset = DEFAULTS._replace(extra=(("threads", None), ("mmap", None)))
    threaded = replace(history[1], knobs=DEFAULTS._replace(extra=(("threads", 2), ("mmap", None))))
    assert confirm.opponents(plan, threaded) == {"defaults": unset}  # the live recipe is the same
    assert confirm.opponents(plan, replace(history[1], knobs=unset)) == {}


def test_a_meeting_that_was_cut_off_decides_nothing_and_goes_on() -> None:
    plan, history = climbed()
    cut = [*history, start(WINNER, 10.0), start(DEFAULTS, 12.0)]
    assert confirm.confirmed(plan, cut, history[1]) == (history[1], None)
    assert next_step(plan, cut) == Confirm(plan.candidates[0], DEFAULTS)


def test_who_misses_the_gate_has_lost() -> None:
    good, bad = start(WINNER, 10.0), start(DEFAULTS, 20.0, fits=False)
    assert confirm.judge("defaults", [good, good], [bad, bad], 0.02)["verdict"] == "better"
    lost = confirm.judge("defaults", [good, bad], [good, good], 0.02)
    assert lost["verdict"] == "worse"
    assert "started again in turns" in confirm.words(WINNER, lost)[0]
    assert confirm.judge("defaults", [good], [start(None, 10.0)], 0.02)["knobs"] == {}


def test_single_requests_are_judged_by_the_difference_alone() -> None:
    def one(tps: float) -> list[Trial]:
        return [replace(start(DEFAULTS, tps), replicates=(Replicate(tps=tps),))]

    assert confirm.judge("live", one(10.0), one(10.1), 0.02)["verdict"] == "tie"
    clear = confirm.judge("live", one(10.0), one(9.0), 0.02)
    assert (clear["verdict"], clear["interval"]) == ("better", None)
    tied = confirm.judge("live", one(10.0), one(10.1), 0.02)
    assert "what the live provider runs" in confirm.words(WINNER, tied)[0]


def test_an_opponent_without_figures_has_none() -> None:
    plan, history = climbed()
    silent = replace(start(DEFAULTS, 1.0, fits=False), replicates=(Replicate(error="HTTP 500"),))
    best, meeting = confirm.confirmed(
        plan, [*history, start(WINNER, 10.0), silent, silent, start(WINNER, 10.0)], history[1]
    )
    assert best == history[1]
    assert meeting is not None
    assert meeting["verdict"] == "better"


def test_several_at_once_meet_by_their_waves() -> None:
    def waves(knobs: Knobs, first_ms: float, last_ms: float) -> Trial:
        samples = tuple(
            Replicate(
                tps=48_000 / took,
                total_ms=took,
                ttft_ms=100.0,
                completion_tokens=48,
                wave=1,
                stream=number,
                sent_ms=0.0,
            )
            for number, took in enumerate((first_ms, last_ms), start=1)
        )
        return Trial(STAGE_CONFIRM, "m-7B", 1, knobs, samples, None, 1.0, 100.0, concurrency=2)

    plan, history = climbed(concurrency=2)
    # One after the other: the first is done early, and yet both together are as slow as the last.
    queued, shared = waves(DEFAULTS, 500.0, 1000.0), waves(WINNER, 800.0, 800.0)
    meetings = [shared, queued, queued, shared]
    _, meeting = confirm.confirmed(plan, [*history, *meetings], history[1])
    assert meeting is not None
    assert meeting["verdict"] == "better"
    assert meeting["difference"] == pytest.approx(0.25)
    meetings = [queued, shared, shared, queued]
    met = [replace(each, knobs=DEFAULTS if each is shared else WINNER) for each in meetings]
    best, meeting = confirm.confirmed(plan, [*history, *met], history[1])
    assert meeting is not None
    assert meeting["verdict"] == "worse"
    assert best.tps_median == pytest.approx(120.0)
    assert best.waves_n == 2
