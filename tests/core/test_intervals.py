"""How two medians are judged: Student's t, the pooled spread, and the interval of a ratio."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.stats import LEAST_FREEDOM, Spread, pooled_spread, ratio, t_quantile

TWO_SIDED = {  # percentage points of Student's t as every printed table has them
    (0.95, 1): 12.706,
    (0.95, 2): 4.303,
    (0.95, 3): 3.182,
    (0.95, 4): 2.776,
    (0.95, 12): 2.179,
    (0.95, 29): 2.045,
    (0.95, 120): 1.980,
    (0.90, 7): 1.895,
    (0.99, 7): 3.499,
    (0.999, 2): 31.599,
    (0.50, 6): 0.718,
}


@pytest.mark.parametrize(("asked", "value"), TWO_SIDED.items())
def test_quantiles_of_t_are_those_of_the_tables(asked: tuple[float, int], value: float) -> None:
    assert t_quantile(*asked) == pytest.approx(value, abs=0.0005)


def test_quantiles_of_t_fall_towards_the_normal_ones() -> None:
    values = [t_quantile(0.95, freedom) for freedom in range(1, 400)]
    assert values == sorted(values, reverse=True)
    assert t_quantile(0.95, 100_000) == pytest.approx(1.959964, abs=0.0001)


def test_the_spread_is_pooled_over_groups_relative_to_each_mean() -> None:
    found = pooled_spread([[99, 101], [990, 1010], [7]])
    assert found.freedom == 2
    assert found.relative == pytest.approx(0.0141421, abs=1e-6)
    assert pooled_spread([[5], []]) == Spread(0.0, 0)


def test_nothing_is_judged_by_too_few_values() -> None:
    found = ratio([100, 101], [200], Spread(0.01, LEAST_FREEDOM - 1), 0.95)
    assert found.interval is None
    assert found.differs is None
    assert found.relative == pytest.approx(200 / 100.5 - 1)


positive = st.floats(0.01, 1e6)
values = st.lists(positive, min_size=1, max_size=9)


@given(values, values, st.floats(0, 0.5), st.integers(LEAST_FREEDOM, 40))
def test_an_interval_holds_its_difference_and_turns_round_with_its_sides(
    a: list[float], b: list[float], relative: float, freedom: int
) -> None:
    spread = Spread(relative, freedom)
    there, back = ratio(a, b, spread, 0.95), ratio(b, a, spread, 0.95)
    assert there.interval is not None
    assert back.interval is not None
    low, high = there.interval
    tolerance = 1e-9 * (1 + abs(there.relative))
    assert low - tolerance <= there.relative <= high + tolerance
    assert (1 + low) * (1 + back.interval[1]) == pytest.approx(1)
    assert there.differs == back.differs


def test_equal_settings_are_told_apart_no_more_often_than_stated() -> None:
    """Of 2,000 runs without any difference, 6 cells of 3, at most 5 % may claim one."""
    seeded = random.Random(7)
    wrong = 0
    for _ in range(2000):
        cells = [[seeded.gauss(100, 2) for _ in range(3)] for _ in range(6)]
        wrong += bool(ratio(cells[0], cells[1], pooled_spread(cells), 0.95).differs)
    assert 0.015 < wrong / 2000 < 0.055
