"""The search as a fold over what has been tried, without a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core import gate
from autotuned.core.doubts import uneven_lengths
from autotuned.core.model import STAGE_CLIMB, STAGE_SELECTION, Failure, FailureKind, Trial
from autotuned.core.pipeline import (
    Confirm,
    Evaluate,
    Finish,
    Halt,
    Probe,
    best_so_far,
    next_step,
    with_kept,
)
from autotuned.core.plan import Plan
from autotuned.core.points import Calibrate
from autotuned.documents.result import ExitReason
from tests.core.worlds import GOOD, MISSED, cell, planned, probe

World = Callable[[Probe | Evaluate | Confirm | Calibrate], Trial]

DAMAGED = Failure(FailureKind.INTEGRITY, "pre-warm integrity: x")


def fold(
    plan: Plan, world: World, halt_after: int | None = None, halt: Halt = Halt.BUDGET
) -> tuple[Finish, list[Trial]]:
    """Run the search in `world`; ended by `halt` after so many trials."""
    history: list[Trial] = []
    while True:
        ended = halt if halt_after is not None and len(history) >= halt_after else None
        step = next_step(plan, history, ended)
        if isinstance(step, Finish):
            return step, history
        history.append(with_kept(plan, history, world(step)))


def world_of(
    plan: Plan, feasible: Sequence[bool], cells: Sequence[tuple[bool, float, float]]
) -> World:
    """Candidate i passes its probe as `feasible` says; its cells are (passes, tps, ttft)."""

    def evaluate(step: Probe | Evaluate | Confirm | Calibrate) -> Trial:
        assert not isinstance(step, Calibrate | Confirm)
        rank = step.candidate.rank
        if isinstance(step, Probe):
            return probe(plan, rank, None if feasible[rank - 1] else MISSED)
        assert isinstance(step, Evaluate)
        passes, tps, ttft = cells[step.index]
        return cell(plan, rank, step.index, tps, ttft, None if passes else MISSED)

    return evaluate


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Plan, list[bool], list[tuple[bool, float, float]]]:
    count = draw(st.integers(1, 5))
    axis = draw(st.sampled_from([[None], [None, 4], [8, None, 4]]))
    batches = draw(st.sampled_from([[1], [2, 1]]))
    names = [f"m{i}-{draw(st.sampled_from(['1B', '7B', 'x']))}" for i in range(count)]
    plan = planned(*names, kv_bits_axis=axis, max_batch_axis=batches)
    feasible = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    figure = st.floats(0.1, 1000)
    cells = draw(
        st.lists(
            st.tuples(st.booleans(), figure, figure),
            min_size=len(plan.cells),
            max_size=len(plan.cells),
        )
    )
    return plan, feasible, cells


@given(worlds())
def test_the_first_feasible_candidate_wins_and_ac_16_every_probe_and_cell_is_a_row(
    drawn: tuple[Plan, list[bool], list[tuple[bool, float, float]]],
) -> None:
    plan, feasible, cells = drawn
    finish, history = fold(plan, world_of(plan, feasible, cells))
    probes = [trial for trial in history if trial.stage == STAGE_SELECTION]
    climbed = [trial for trial in history if trial.stage == STAGE_CLIMB]
    assert [trial.rank for trial in probes] == list(range(1, len(probes) + 1))  # the order given
    assert history == probes + climbed
    if not any(feasible):
        assert finish == Finish(ExitReason.NO_FEASIBLE)
        assert (len(probes), climbed) == (len(plan.candidates), [])
        return
    first = feasible.index(True)
    assert finish.chosen == plan.candidates[first]
    assert len(probes) == first + 1
    assert [trial.knobs for trial in climbed] == list(plan.cells)
    assert {trial.model for trial in climbed} == {plan.candidates[first].model}
    assert finish.exit_reason == (
        ExitReason.OK if any(passes for passes, _, _ in cells) else ExitReason.NO_FEASIBLE
    )
    assert finish.best == best_so_far(history)
    assert not finish.partial
    if finish.best is not None:
        fastest = max(tps for passes, tps, _ in cells if passes)
        assert finish.best.fits
        assert finish.best.tps_median is not None
        assert finish.best.tps_median >= fastest * (1 - plan.request.tps_tie_epsilon) ** len(cells)
    assert not any(trial.kept for trial in probes)


@given(worlds(), st.integers(0, 10), st.sampled_from(Halt))
def test_a_halted_run_ends_with_what_there_is(
    drawn: tuple[Plan, list[bool], list[tuple[bool, float, float]]], after: int, halt: Halt
) -> None:
    plan, feasible, cells = drawn
    whole, _ = fold(plan, world_of(plan, feasible, cells))
    finish, history = fold(plan, world_of(plan, feasible, cells), after, halt)
    if len(history) < after:
        assert finish == whole
        return
    best = best_so_far(history)
    match halt:
        case Halt.INTERNAL:
            assert finish.exit_reason is ExitReason.INTERNAL_ERROR
            assert finish.best is None
        case Halt.CONFLICT:
            assert finish.exit_reason is ExitReason.PROVIDER_CONFLICT
            assert finish.best is None
        case Halt.CANCELLED:
            assert finish.exit_reason is ExitReason.INTERRUPTED
            assert (finish.best, finish.partial) == (best, best is not None)
        case Halt.BUDGET if best is None:
            assert finish.exit_reason is ExitReason.BUDGET_NONE
            assert not finish.partial
        case Halt.BUDGET:
            assert finish.exit_reason is ExitReason.BUDGET_PARTIAL
            assert (finish.best, finish.partial) == (best, True)


@given(worlds(), st.integers(0, 12))
def test_a_search_goes_on_from_any_stored_history(
    drawn: tuple[Plan, list[bool], list[tuple[bool, float, float]]], cut: int
) -> None:
    plan, feasible, cells = drawn
    world = world_of(plan, feasible, cells)
    finish, history = fold(plan, world)
    again = history[:cut]
    while not isinstance(step := next_step(plan, again), Finish):
        again.append(with_kept(plan, again, world(step)))
    assert (step, again) == (finish, history)


def test_an_integrity_failure_ends_the_run_even_when_it_is_halted() -> None:
    plan = planned("a", "b")
    history = [probe(plan, 1, DAMAGED)]
    assert next_step(plan, history) == Finish(ExitReason.INTEGRITY)
    assert next_step(plan, history, Halt.CANCELLED) == Finish(ExitReason.INTEGRITY)


@pytest.mark.parametrize(
    "kind", [kind for kind in FailureKind if kind is not FailureKind.INTEGRITY]
)
def test_any_other_failure_leads_to_the_next_candidate(kind: FailureKind) -> None:
    plan = planned("a", "b")
    assert next_step(plan, [probe(plan, 1, Failure(kind, "x"))]) == Probe(plan.candidates[1])


def test_a_feasible_small_candidate_that_stands_first_is_chosen() -> None:
    plan = planned("x-1B", "x-32B", kv_bits_axis=[None], max_batch_axis=[1])
    step = next_step(plan, [probe(plan, 1)])
    assert step == Evaluate(plan.candidates[0], 0, plan.cells[0])


def test_each_way_to_halt_has_its_own_end() -> None:
    plan = planned("x-7B")
    history = [probe(plan, 1), with_kept(plan, [], cell(plan, 1, 0))]
    chosen, best = plan.candidates[0], history[1]
    assert next_step(plan, history[:1], Halt.BUDGET) == Finish(ExitReason.BUDGET_NONE, chosen)
    assert next_step(plan, history, Halt.BUDGET) == Finish(
        ExitReason.BUDGET_PARTIAL, chosen, best, partial=True
    )
    assert next_step(plan, history[:1], Halt.CANCELLED) == Finish(ExitReason.INTERRUPTED, chosen)
    assert next_step(plan, history, Halt.CONFLICT) == Finish(ExitReason.PROVIDER_CONFLICT, chosen)
    assert next_step(plan, history, Halt.INTERNAL) == Finish(ExitReason.INTERNAL_ERROR, chosen)


def test_answers_of_another_length_are_told_beside_the_best_cell() -> None:
    made = planned("m")
    best, other = cell(made, 1, 0), cell(made, 1, 1)
    short = replace(other, replicates=(replace(GOOD, completion_tokens=12),))
    silent = replace(other, replicates=(replace(GOOD, completion_tokens=None),))
    assert uneven_lengths(best, [best, other, silent]) == []
    (warning,) = uneven_lengths(best, [best, short, silent])
    assert warning.startswith("answers differ in length: 48 tokens in the best cell, 12 in others;")


def test_tokens_of_blanks_alone_are_no_leak() -> None:
    assert gate.stop_tokens(["\n\n", "<|mine|>"]) == (*gate.STOP_TOKENS, "<|mine|>")


def test_a_candidate_that_never_came_up_counts_one_error() -> None:
    made = planned("m")
    never = replace(probe(made, 1, Failure(FailureKind.START, "x")), replicates=())
    assert never.n_err == 1
    assert replace(never, failure=Failure(FailureKind.STATIC, "x")).n_err == 0
