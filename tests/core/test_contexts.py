"""Several target contexts in one run: each is answered as by a run of its own, the smaller ones first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotuned.core import result as public
from autotuned.core.model import Failure, FailureKind, MachineFacts, Trial
from autotuned.core.pipeline import (
    Evaluate,
    Finish,
    Halt,
    Probe,
    next_of,
    of_first,
    of_part,
    with_kept,
)
from autotuned.core.plan import Plan
from autotuned.core.request import TuneRequest, parse
from autotuned.documents.result import ExitReason
from autotuned.errors import ConfigError
from tests.core.worlds import GOOD, planned, probe

FACTS = MachineFacts(16, "Apple M2", "macOS 15.1", 16 * 2**30)
MISSED = Failure(FailureKind.GATE, "too slow")
MODELS = ("a-14B", "b-7B", "c-3B")


def several(*contexts: int, **fields: Any) -> Plan:
    axes = {"kv_bits_axis": [None], "max_batch_axis": [1, 2], **fields}
    return planned(*MODELS, target_context=list(contexts), **axes)


def carried(
    plan: Plan, serves: dict[int, str], steps: int = 100
) -> tuple[list[Trial], Finish | None]:
    """The run on a machine that serves so much context with this model and smaller ones, or so many steps of it."""
    history: list[Trial] = []
    for _ in range(steps):
        part, step = next_of(plan, history)
        if isinstance(step, Finish):
            return history, step
        assert isinstance(step, Probe | Evaluate)
        largest = MODELS.index(serves[part.request.target_context])
        fits = MODELS.index(step.candidate.model) >= largest
        trial = probe(part, step.candidate.rank, None if fits else MISSED)
        if isinstance(step, Evaluate):
            trial = Trial(2, step.candidate.model, step.candidate.rank, step.knobs, (GOOD,), None)
            trial = replace(trial, tps_median=10.0 * step.knobs.max_batch, ttft_p95_ms=100.0)
        tagged = replace(trial, profile=part.profile)
        history.append(with_kept(part, of_part(part, history), tagged))
    return history, None


def test_each_context_is_walked_from_the_candidate_of_the_one_before() -> None:
    history, finish = carried(several(16000, 4000), {4000: "b-7B", 16000: "c-3B"})
    assert [(trial.profile, trial.stage, trial.model) for trial in history] == [
        (4000, 1, "a-14B"),
        (4000, 1, "b-7B"),
        (4000, 2, "b-7B"),
        (4000, 2, "b-7B"),
        (16000, 1, "b-7B"),
        (16000, 1, "c-3B"),
        (16000, 2, "c-3B"),
        (16000, 2, "c-3B"),
    ]
    assert finish is not None
    assert (finish.exit_reason, finish.best) == (ExitReason.OK, history[3])
    assert [(part.profile, each.best) for part, each in finish.profiles] == [
        (4000, history[3]),
        (16000, history[7]),
    ]
    assert {trial.knobs.max_context for trial in history[6:] if trial.knobs} == {16000}
    assert of_first(history) == tuple(history[:4])
    assert of_first([]) == ()


def test_where_nothing_serves_a_context_no_larger_one_is_tried_and_the_run_is_still_good() -> None:
    nobody = {4000: "a-14B", 16000: "c-3B", 64000: "c-3B"}
    plan = several(4000, 16000, 64000)
    history, finish = carried(plan, {**nobody, 16000: "a-14B"})
    assert finish is not None
    assert len(finish.profiles) == 3
    failing = [
        replace(trial, failure=MISSED) if trial.profile == 16000 and trial.stage == 1 else trial
        for trial in history
        if trial.profile == 4000 or (trial.profile == 16000 and trial.stage == 1)
    ]
    rest = [replace(failing[-1], rank=rank, model=MODELS[rank - 1]) for rank in (2, 3)]
    _, step = next_of(plan, [*failing, *rest])
    assert isinstance(step, Finish)
    assert step.exit_reason is ExitReason.OK
    assert [each.exit_reason for _, each in step.profiles] == [
        ExitReason.OK,
        ExitReason.NO_FEASIBLE,
    ]


@pytest.mark.parametrize(
    ("halt", "steps", "reason"),
    [
        (Halt.BUDGET, 6, ExitReason.BUDGET_PARTIAL),
        (Halt.BUDGET, 5, ExitReason.BUDGET_PARTIAL),
        (Halt.CANCELLED, 6, ExitReason.INTERRUPTED),
        (Halt.BUDGET, 3, ExitReason.BUDGET_PARTIAL),
        (Halt.BUDGET, 1, ExitReason.BUDGET_NONE),
        (Halt.INTERNAL, 6, ExitReason.INTERNAL_ERROR),
    ],
)
def test_what_is_cut_short_keeps_the_contexts_that_are_answered(
    halt: Halt, steps: int, reason: ExitReason
) -> None:
    plan = several(4000, 16000)
    history, _ = carried(plan, {4000: "b-7B", 16000: "c-3B"}, steps)
    _, step = next_of(plan, history, halt)
    assert isinstance(step, Finish)
    assert step.exit_reason is reason
    assert (step.best is not None) is (steps >= 3)
    assert step.partial is (steps == 3)


def test_one_context_is_a_run_as_before_also_as_a_list() -> None:
    plan = planned(*MODELS, target_context=[4000])
    assert (plan.profiles, plan.profile, plan.parts()) == ((), None, (plan,))
    assert plan == planned(*MODELS, target_context=4000)
    assert TuneRequest(target_context=4000).model_dump()["target_context"] == 4000


def test_a_single_context_is_asked_as_ever() -> None:
    plan = planned(*MODELS, target_context=4000)
    assert next_of(plan, []) == (plan, Probe(plan.candidates[0]))


def test_each_context_has_an_answer_and_a_hash_of_its_own_or_the_reason_for_none() -> None:
    plan = several(4000, 16000)
    history, finish = carried(plan, {4000: "b-7B", 16000: "c-3B"})
    assert finish is not None
    small, large = (
        public.profile("r", FACTS, "1.4.0", part, each, history) for part, each in finish.profiles
    )
    assert (small["target_context"], large["target_context"]) == (4000, 16000)
    assert large["recommendation"] is not None
    assert large["recommendation"]["model"] == "c-3B"
    assert small["recipe_hash"] != large["recipe_hash"]
    assert (small["reason"], large["reason"]) == (None, None)
    part = finish.profiles[1][0]
    none = public.profile("r", FACTS, "1.4.0", part, Finish(ExitReason.NO_FEASIBLE), history[4:5])
    assert (none["recommendation"], none["recipe_hash"]) == (None, None)
    assert none["reason"] is not None
    assert "16000 tokens" in none["reason"]


def test_a_request_with_several_is_kept_as_it_was_asked_for() -> None:
    request = parse({"target_context": [16000, 4000]})
    assert (request.target_context, request.contexts) == (4000, (4000, 16000))
    stored = request.model_dump(mode="json")
    assert stored["target_context"] == [4000, 16000]
    assert "further_contexts" not in stored
    assert TuneRequest.model_validate(stored).contexts == request.contexts


def test_cells_of_a_larger_context_have_no_smaller_cap() -> None:
    plan = several(4000, 16000, max_context_axis=[4000, 8000, 32000])
    assert [sorted({knobs.max_context for knobs in part.cells}) for part in plan.parts()] == [
        [4000, 8000, 32000],
        [32000],
    ]
    bare = several(4000, 16000, max_context_axis=[4000])
    assert {knobs.max_context for knobs in bare.parts()[1].cells} == {16000}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_context": [4000, 4000]}, r"target_context: \[4000, 4000\] has 4000 twice"),
        ({"target_context": []}, r"target_context: \[\] should be a number of tokens, or a list"),
        ({"target_context": [4000, "x"]}, "target_context"),
        ({"target_context": [4000, True]}, "target_context"),
        ({"target_context": [0, 4000]}, "target_context"),
        ({"target_context": [4000, 20_000_000]}, "target_context: 20000000 should be less"),
        (
            {"target_context": [4000, 8000], "calibrate_context": True},
            "calibrate_context: true cannot be given beside several target contexts",
        ),
    ],
)
def test_what_is_no_list_of_contexts_is_refused_by_its_name(
    fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(fields)
