"""When an adaptive run stops asking a cell: it cannot win, it has won, it is a tie, or it has had its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autotuned.core.model import STAGE_CLIMB, Replicate, Trial
from autotuned.core.noise import enough, most
from autotuned.core.stats import median
from autotuned.shared.knobs import Knobs

EPSILON = 0.02


def cell(*figures: float, kept: bool = False) -> Trial:
    """A measured cell."""
    replicates = tuple(Replicate(tps=tps, ttft_ms=10.0) for tps in figures)
    trial = Trial(
        STAGE_CLIMB, "m", 1, Knobs(None, 1, 2000), replicates, None, median(figures), 10.0
    )
    return replace(trial, kept=kept)


BEST = cell(100.0, 101.0, 99.0, kept=True)


@pytest.mark.parametrize(
    ("history", "figures", "settled"),
    [
        ([], [100.0], False),
        ([], [100.0, 101.0], False),
        ([], [100.0, 101.0, 99.0], True),
        ([BEST], [], False),
        ([BEST], [80.0], True),
        ([BEST], [130.0], True),
        ([BEST], [101.5, 102.5], False),
        ([BEST], [101.5, 103.5, 100.5], False),
        ([BEST], [101.5, 103.5, 100.5, 104.5], True),
        ([cell(100.0, 100.0, 100.0, kept=True)], [100.1], True),
    ],
)
def test_a_cell_is_settled_once_its_place_is_clear(
    history: Sequence[Trial], figures: list[float], settled: bool
) -> None:
    assert enough(history, figures, 3, EPSILON) is settled


def test_with_one_replicate_a_cell_there_is_no_spread_to_judge_by() -> None:
    history = [cell(100.0, kept=True)]
    assert enough(history, [50.0], 1, EPSILON)
    assert not enough(history, [50.0], 2, EPSILON)


@pytest.mark.parametrize(("usual", "limit"), [(1, 2), (3, 4), (6, 8)])
def test_an_open_cell_gets_a_third_more_than_usual(usual: int, limit: int) -> None:
    assert most(usual) == limit
