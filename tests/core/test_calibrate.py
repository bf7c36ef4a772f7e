"""Calibration asks few points and finds the exact answer on servers whose truth is planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotuned.core.calibrate import (
    Ask,
    ConcurrencyAnswer,
    ContextAnswer,
    ContextBounds,
    Point,
    is_queue,
    largest_in_time,
    next_concurrency,
    next_context,
)

CEILING_MS = 4_000.0
Server = Callable[[int], Point]


def wave(streams: int, ttft_ms: Sequence[float], aggregate: float) -> Point:
    """What a wave with these first tokens comes to, abandoned as soon as too many are late."""
    in_time = [moment for moment in ttft_ms if moment <= CEILING_MS]
    if largest_in_time(len(in_time)) < streams:
        queued = is_queue(in_time, CEILING_MS)
        return Point(streams, passes=False, in_time=len(in_time), queued=queued)
    p95 = sorted(ttft_ms)[math.ceil(0.95 * streams - 1e-9) - 1]
    return Point(streams, True, p95, aggregate, in_time=len(in_time))


def serial_prefill(prefill_ms: float) -> Server:
    """One prompt after the other; what is decoded together shares one rate."""
    return lambda n: wave(n, [prefill_ms * (i + 1) for i in range(n)], 100 * n / (n + 3))


def hard_slots(slots: int) -> Server:
    """So many at once; whoever comes later waits until a stream has ended."""
    return lambda n: wave(
        n, [50.0 * (i % slots + 1) + 60_000 * (i // slots) for i in range(n)], 10.0 * min(n, slots)
    )


def memory_wall(most: int) -> Server:
    """Nothing foretells it: beyond so many the server does not start."""
    return lambda n: (
        Point(n, True, 100.0, 20.0 * n, in_time=n)
        if n <= most
        else Point(n, passes=False, reason="out of memory", never_served=True)
    )


def calibrate(server: Server, ceiling: int = 32) -> tuple[ConcurrencyAnswer, list[Point]]:
    points: list[Point] = []
    while True:
        step = next_concurrency(ceiling, 0.15, CEILING_MS, points)
        if isinstance(step, ConcurrencyAnswer):
            return step, points
        largest = max((point.value for point in points if point.passes), default=0)
        assert step <= 2 * largest or step == 1
        assert step not in [point.value for point in points]
        points.append(server(step))


def truth(server: Server) -> int | None:
    return max((n for n in range(1, 33) if server(n).passes), default=None)


@pytest.mark.parametrize("prefill_ms", [*range(100, 4_000, 90), 5_000])
def test_where_prefill_decides_the_largest_is_exact_in_seven_points(prefill_ms: int) -> None:
    server = serial_prefill(prefill_ms)
    answer, points = calibrate(server)
    assert answer.largest == truth(server)
    assert len(points) <= 7


@pytest.mark.parametrize("prefill_ms", [*range(100, 4_000, 90), 5_000])
def test_where_all_first_tokens_come_at_once_the_largest_is_exact_in_few_points(
    prefill_ms: int,
) -> None:
    """A wave that misses the ceiling then has no stream in time, which tells nothing."""

    def server(n: int) -> Point:
        return wave(n, [prefill_ms * n] * n, 100 * n / (n + 3))

    answer, points = calibrate(server)
    assert answer.largest == truth(server)
    assert len(points) <= 9


def test_two_numbers_with_the_same_rank_foretell_nothing() -> None:
    """The p95 of 19 streams and of 20 is the 19th."""
    ttft_ms = {1: 100, 2: 200, 4: 300, 8: 410, 16: 3_050, 18: 3_700, 19: 3_890, 20: 3_950}
    answer, points = calibrate(
        lambda n: Point(n, n in ttft_ms, float(ttft_ms.get(n, 5_000)), 100.0, in_time=min(n, 20))
    )
    assert answer.largest == 20
    assert [point.value for point in points][5:8] == [18, 19, 20]


@pytest.mark.parametrize("slots", range(1, 40))
def test_where_slots_decide_the_largest_is_exact_in_seven_points(slots: int) -> None:
    server = hard_slots(slots)
    answer, points = calibrate(server)
    assert answer.largest == truth(server)
    assert len(points) <= 7


@pytest.mark.parametrize("most", range(40))
def test_where_memory_decides_the_largest_is_exact_in_ten_points(most: int) -> None:
    server = memory_wall(most)
    answer, points = calibrate(server)
    assert answer.largest == truth(server)
    assert len(points) <= 10


@given(st.floats(20, 6_000), st.integers(1, 64), st.integers(1, 300))
def test_any_mix_of_prefill_and_slots_is_exact(prefill_ms: float, slots: int, ceiling: int) -> None:
    def server(n: int) -> Point:
        moments = [prefill_ms * (i % slots + 1) + 20_000 * (i // slots) for i in range(n)]
        return wave(n, moments, 10.0 * min(n, slots))

    answer, _ = calibrate(server, ceiling)
    want = max((n for n in range(1, ceiling + 1) if server(n).passes), default=None)
    assert answer.largest == want


def test_the_recommended_number_is_the_smallest_within_the_gain_of_the_best() -> None:
    answer, points = calibrate(lambda n: wave(n, [100.0] * n, float(min(n, 6))))
    assert answer == ConcurrencyAnswer(32, 6)
    assert [point.value for point in points] == [1, 2, 4, 8, 16, 32, 6]


def test_a_server_without_figures_for_its_points_is_still_answered() -> None:
    answer, _ = calibrate(lambda n: Point(n, n <= 3))
    assert answer == ConcurrencyAnswer(3, 1)


def test_a_ttft_that_does_not_grow_foretells_nothing() -> None:
    _, points = calibrate(lambda n: wave(n, [500.0 - n] * n, float(n)))
    assert [point.value for point in points][:6] == [1, 2, 4, 8, 16, 32]


def test_a_silence_after_steady_first_tokens_is_a_queue() -> None:
    assert is_queue([100, 200, 300], 4_000)
    assert not is_queue([1_000, 2_000, 3_000], 3_900)
    assert not is_queue([100], 4_000)


def context(
    bounds: ContextBounds, server: Callable[[Ask], Point]
) -> tuple[ContextAnswer, list[Point]]:
    points: list[Point] = []
    while True:
        step = next_context(bounds, points)
        if isinstance(step, ContextAnswer):
            return step, points
        points.append(server(step))


def window(most: int, memory: int = 10**9, confirmed: int = 10**9) -> Callable[[Ask], Point]:
    """Serves prompts up to `most`; starts with caches up to `memory`; confirms up to `confirmed`."""

    def serve(ask: Ask) -> Point:
        starts = ask.max_context <= memory
        passes = starts and ask.context <= (min(most, confirmed) if ask.confirms else most)
        return Point(
            ask.context,
            passes,
            max_context=ask.max_context,
            confirms=ask.confirms,
            never_served=not starts,
        )

    return serve


@given(
    st.integers(1, 20_000),
    st.integers(0, 200_000),
    st.integers(1, 300_000),
    st.sampled_from([None, 1, 100, 4_096]),
)
@example(target=79, room=2_421, most=2_300, quantum=100)
def test_the_context_is_exact_to_its_step_in_few_points(
    target: int, room: int, most: int, quantum: int | None
) -> None:
    bounds = ContextBounds(target, target + room, quantum)
    answer, points = context(bounds, window(most))
    true = min(most, target + room)
    if most < target:
        assert answer.answer is None
        assert len(points) == 1
        return
    assert answer.answer is not None
    assert answer.answer <= true < answer.answer + bounds.quantum_at(true)
    assert [point.value for point in points if point.passes][-1] == answer.answer
    finest = bounds.quantum_at(answer.answer)
    assert len(points) <= max(3.0, 2 + 2 * math.log2((target + room) / min(finest, target)))


def test_one_start_serves_all_points_and_the_answer_is_confirmed_by_its_own() -> None:
    answer, points = context(ContextBounds(4_000, 32_768), window(23_500))
    assert answer == ContextAnswer(23_000, 32_000)
    assert [(point.value, point.max_context, point.confirms) for point in points] == [
        (4_000, 32_000, False),
        (8_000, 32_000, False),
        (16_000, 32_000, False),
        (32_000, 32_000, False),
        (24_000, 32_000, False),
        (20_000, 32_000, False),
        (22_000, 32_000, False),
        (23_000, 32_000, False),
        (23_000, 23_000, True),
    ]


def test_a_server_that_does_not_start_with_the_bound_gets_half_of_it() -> None:
    answer, points = context(ContextBounds(4_000, 131_072), window(10**9, memory=40_000))
    assert answer == ContextAnswer(32_000, 32_000)
    assert [point.max_context for point in points[:3]] == [131_000, 65_000, 32_000]


def test_a_server_that_does_not_even_start_with_the_target_has_no_answer() -> None:
    answer, _ = context(ContextBounds(4_000, 16_000), window(10**9, memory=3_000))
    assert answer.answer is None


def test_a_confirmation_that_fails_goes_down_step_by_step_three_times() -> None:
    bounds = ContextBounds(4_000, 16_000)
    assert context(bounds, window(10_000, confirmed=8_000))[0].answer == 8_000
    answer, points = context(bounds, window(10_000, confirmed=5_000))
    assert answer.answer is None
    assert [point.value for point in points if point.confirms] == [10_000, 9_000, 8_000, 7_000]


def test_a_target_that_cannot_be_confirmed_has_no_answer() -> None:
    answer, points = context(ContextBounds(4_000, 4_000), window(4_000, confirmed=0))
    assert answer.answer is None
    assert len(points) == 2
