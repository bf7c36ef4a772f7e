"""The gate, the statistics and the keep-best rule."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core import gate, stats
from autotuned.core.model import FailureKind, Replicate, Trial
from autotuned.core.pipeline import wins
from tests.core.worlds import GOOD, measured

BAD = Replicate(error="HTTP 500: planned")
LEAKED = replace(GOOD, leaked_token=gate.STOP_TOKENS[8])
LATE = replace(GOOD, ttft_ms=60_001.0)
figures = st.floats(min_value=1e-3, max_value=1e6)


@pytest.mark.parametrize(
    ("replicates", "reason"),
    [
        ([], "no request was measured"),
        ([BAD], "HTTP 500: planned"),
        ([GOOD, BAD, GOOD], "1 of 3 requests failed: HTTP 500: planned"),
        ([GOOD, replace(GOOD, alive_after=False)], "the provider answered and then died"),
        ([LEAKED], "stop token leaked into the answer: </s>"),
        ([GOOD, LATE], "TTFT p95 60001 ms is above the gate of 60000 ms"),
        ([replace(BAD, alive_after=False)], "HTTP 500: planned"),  # the request's own reason leads
    ],
)
def test_one_bad_replicate_makes_a_trial_infeasible(
    replicates: list[Replicate], reason: str
) -> None:
    failure = gate.judge(replicates, 60_000)
    assert failure is not None
    assert (failure.kind, failure.reason) == (FailureKind.GATE, reason)


def test_a_ttft_of_exactly_the_gate_passes() -> None:
    assert gate.judge([replace(GOOD, ttft_ms=60_000.0)], 60_000) is None


def test_of_twenty_replicates_the_slowest_is_forgiven_and_of_nineteen_it_is_not() -> None:
    assert gate.judge([GOOD] * 19 + [LATE], 60_000) is None
    assert gate.judge([GOOD] * 18 + [LATE], 60_000) is not None


def test_measuring_on_is_useless_after_death_or_a_missed_gate() -> None:
    assert not gate.is_final(GOOD)
    assert not gate.is_final(BAD)
    assert gate.is_final(replace(BAD, gate_missed=True))
    assert gate.is_final(replace(GOOD, alive_after=False))


@given(st.text(max_size=1200))
def test_a_reason_is_one_storable_line_of_at_most_480_characters(reason: str) -> None:
    line = gate.bounded(reason)
    assert len(line) <= 480
    assert not any(letter in line for letter in "\r\n\t")
    line.encode()
    if len(reason) <= 480 and reason.isascii() and reason.isprintable():
        assert line.split() == reason.split()


def test_a_long_reason_says_that_it_was_cut() -> None:
    assert gate.bounded("x" * 481) == "x" * 477 + "..."
    assert gate.bounded("x" * 480) == "x" * 480


def test_half_a_character_in_a_reason_is_replaced() -> None:
    assert gate.bounded("bad \ud800 text") == "bad ? text"
    assert gate.bounded("a\x1b[2J\x00\u202e b\tc") == "a?[2J?? b c"


@given(st.lists(figures, min_size=1, max_size=50))
def test_the_median_is_the_textbook_one(values: list[float]) -> None:
    assert stats.median(values) == pytest.approx(statistics.median(values))


@given(st.lists(figures, min_size=1, max_size=50))
def test_p95_is_the_smallest_value_that_covers_95_percent(values: list[float]) -> None:
    found = stats.p95_nearest_rank(values)
    assert found in values
    assert sum(value <= found for value in values) >= 0.95 * len(values)
    below = [value for value in values if value < found]
    assert len(below) < 0.95 * len(values)
    if len(values) < 20:
        assert found == max(values)


def test_the_spread_is_pooled_over_groups() -> None:
    assert stats.pooled_spread([[1.0], []]) == stats.Spread(0.0, 0)
    assert stats.pooled_spread([]).freedom == 0
    pair = stats.pooled_spread([[9.0, 11.0]])
    assert pair.relative == pytest.approx(statistics.stdev([0.9, 1.1]))
    both = stats.pooled_spread([[9.0, 11.0], [5.0], [100.0, 100.0]])
    assert both.relative == pytest.approx(math.sqrt(0.02 / 2))
    assert both.freedom == 2


@pytest.mark.parametrize(
    ("new", "best", "won"),
    [
        ((10.05, 3000), (10.0, 4000), True),  # a tie goes to the lower TTFT
        ((10.05, 4500), (10.0, 4000), False),
        ((10.0, 4000), (10.0, 4000), False),  # equal TTFT keeps the old
        ((10.3, 9000), (10.0, 1), True),
        ((9.7, 1), (10.0, 9000), False),
        ((9.9, 1), (10.0, 9000), True),  # a little slower is a tie, too
        ((10.0, None), (10.0, 4000), False),
        ((10.0, 4000), (10.0, None), True),
    ],
)
def test_throughput_wins_and_ttft_breaks_ties(
    new: tuple[float, float | None], best: tuple[float, float | None], won: bool
) -> None:
    assert wins(measured(*new), measured(*best), 0.02) is won


@pytest.mark.parametrize("tps", [None, math.nan, math.inf, 0.0, -1.0])
def test_a_cell_without_a_real_figure_never_wins(tps: float | None) -> None:
    assert not wins(measured(tps), None, 0.02)
    assert not wins(measured(tps), measured(1.0), 0.02)


def test_an_infeasible_cell_never_wins_and_anything_beats_nothing() -> None:
    assert not wins(measured(99.0, fits=False), None, 0.02)
    assert wins(measured(0.1), None, 0.02)
    assert wins(measured(0.1), measured(None), 0.02)


@given(figures, figures, figures, figures, st.floats(min_value=0, max_value=0.5))
def test_no_two_cells_beat_each_other_by_throughput_and_a_clear_winner_wins_both_ways(
    first: float, second: float, ttft: float, other: float, epsilon: float
) -> None:
    one, two = measured(first, ttft), measured(second, other)
    if first > second * (1 + epsilon):
        assert wins(one, two, epsilon)
        if abs(first - second) > epsilon * first:
            assert not wins(two, one, epsilon)


def test_the_rule_depends_on_the_order_of_the_cells_by_contract() -> None:
    """A slow drift within ties keeps the last one, the same cells the other way round the first. Not to be mended."""
    cells = [measured(10.0, 300), measured(9.9, 200), measured(9.8, 100)]

    def kept(order: list[Trial]) -> Trial | None:
        best = None
        for trial in order:
            best = trial if wins(trial, best, 0.02) else best
        return best

    assert kept(cells) is cells[2]
    assert kept(cells[::-1]) is cells[0]


@given(st.lists(st.tuples(figures | st.just(math.nan), figures), max_size=8))
def test_a_climb_never_keeps_a_nan(cells: list[tuple[float, float]]) -> None:
    best = None
    for tps, ttft in cells:
        trial = measured(tps, ttft)
        if wins(trial, best, 0.02):
            best = trial
    assert best is None or (best.tps_median is not None and math.isfinite(best.tps_median))
    if any(math.isfinite(tps) for tps, _ in cells):
        assert best is not None
