"""The search of a large space: a fold over what was measured, that finds the fast cells behind walls."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.search import Cell, Measured, effects, next_cell, trials_for
from autotuned.shared.knobs import Value

AXES: dict[str, list[Value]] = {
    "kv_bits": [None, 8, 4],
    "threads": [1, 2, 3, 4],
    "attention": ["off", "on"],
    "batch": [64, 512, 2048],
    "mmap": [True, False],
}
SPACE: list[Cell] = [
    dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())
]

RECORDED = json.loads((Path(__file__).parents[2] / "benchmarks" / "spaces.json").read_text("utf-8"))
"""Every cell of a real server, in several spaces, each with its tokens per second."""

World = Callable[[Cell], float | None]


def walled(cell: Cell) -> float | None:
    """The best is three steps from the defaults, and a quantised cache needs the attention."""
    if cell["kv_bits"] is not None and cell["attention"] == "off":
        return None
    threads = {1: 1.0, 2: 1.9, 3: 2.4, 4: 2.1}[int(cell["threads"] or 1)]
    attention = 1.2 if cell["attention"] == "on" else 1.0
    cache = 1.1 if cell["kv_bits"] == 8 else 1.0
    return 10 * threads * attention * cache * (1.15 if cell["batch"] == 512 else 1.0)


def searched(
    world: World, trials: int, *, seed: int = 3, space: Sequence[Cell] = SPACE
) -> list[Measured]:
    tried: list[Measured] = []
    while (index := next_cell(space, tried, trials, 0.02, seed)) is not None:
        tried.append(Measured(index, world(space[index])))
    return tried


def test_the_defaults_come_first() -> None:
    assert next_cell(SPACE, [], 16, 0.02, seed=9) == 0


def test_a_search_comes_near_the_best_of_144_cells_in_twenty_trials() -> None:
    best = max(walled(cell) or 0 for cell in SPACE)
    found = max(entry.tps or 0 for entry in searched(walled, 20))
    assert found > 0.97 * best


@pytest.mark.parametrize("name", RECORDED)
def test_a_search_of_a_real_servers_cells_loses_little_of_its_best(name: str) -> None:
    space = [
        dict(zip(RECORDED[name]["axes"], values, strict=True))
        for values in itertools.product(*RECORDED[name]["axes"].values())
    ]
    place = {id(cell): place for place, cell in enumerate(space)}
    truth = RECORDED[name]["tps"]
    tried = searched(lambda cell: truth[place[id(cell)]], trials_for(len(space)), space=space)
    assert max(entry.tps or 0 for entry in tried) > 0.9 * max(tps or 0 for tps in truth)


def test_no_cell_is_measured_twice_and_no_more_than_were_allowed() -> None:
    for trials in (1, 7, 16):
        places = [entry.place for entry in searched(walled, trials)]
        assert len(set(places)) == len(places) <= trials


def test_more_trials_than_cells_end_with_the_last_cell() -> None:
    few = SPACE[:4]
    assert sorted(entry.place for entry in searched(walled, 99, space=few)) == [0, 1, 2, 3]


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 18))
def test_a_search_that_is_cut_off_anywhere_goes_on_with_the_same_steps(seed: int, cut: int) -> None:
    def world(cell: Cell) -> float | None:
        chance = random.Random(f"{seed} {sorted(cell.items(), key=str)}").random()
        return None if chance < 0.2 else 1 + chance

    whole = searched(world, 18, seed=seed)
    again = list(whole[:cut])
    while (index := next_cell(SPACE, again, 18, 0.02, seed)) is not None:
        again.append(Measured(index, world(SPACE[index])))
    assert again == whole


def test_it_ends_after_ten_cells_without_a_gain_but_not_before_one_serves() -> None:
    assert len(searched(lambda _: 5.0, 100)) == 11
    assert len(searched(lambda _: None, 30)) == 30


def test_a_gain_within_the_tie_band_does_not_prolong_the_search() -> None:
    creeping = itertools.count()
    assert len(searched(lambda _: 100 + 0.1 * next(creeping), 100)) == 11


def test_each_value_of_a_short_axis_and_ends_and_middle_of_a_long_one_are_seen_first() -> None:
    tried = searched(lambda cell: math.exp(len(str(cell)) / 50), 10)
    seen = {(name, value) for entry in tried for name, value in SPACE[entry.place].items()}
    assert {("threads", 1), ("threads", 3), ("threads", 4)} <= seen
    assert {("batch", value) for value in AXES["batch"]} <= seen


def test_a_search_that_gains_with_every_other_cell_uses_its_trials() -> None:
    ramp = {id(cell): 1.0 + index for index, cell in enumerate(SPACE)}
    small = [cell for cell in SPACE if cell["mmap"] is True and cell["batch"] == 64]
    tried = searched(lambda cell: ramp[id(cell)] if len(cell) else None, 24, space=small)
    assert len(tried) > 14


def test_defaults_that_lie_outside_the_axes_are_one_cell_more() -> None:
    outside: Cell = {"threads": None, "batch": None}
    space = [outside, *({"threads": t, "batch": b} for t in (1, 2, 4) for b in (64, 128))]
    tried = searched(lambda cell: float(cell["threads"] or 1), 7, space=space)
    assert tried[0].place == 0
    assert sorted(entry.place for entry in tried) == list(range(7))


@pytest.mark.parametrize(("cells", "trials"), [(3, 3), (25, 16), (216, 17), (1000, 80)])
def test_so_many_trials_are_made_of_so_many_cells(cells: int, trials: int) -> None:
    assert trials_for(cells) == trials


def test_the_effect_of_a_knob_is_its_medians_and_the_share_of_the_spread() -> None:
    measured = [({"a": a, "b": b, "c": 1}, 10.0 * a) for a in (1, 2) for b in ("x", "y")]
    first, second = effects([*measured, ({"a": 3, "b": "x", "c": 1}, None)])
    assert (first.name, first.medians) == ("a", [(1, 10.0), (2, 20.0), (3, None)])
    assert first.share == pytest.approx(1)
    assert second.name == "b"
    assert second.share == pytest.approx(0)


def test_nothing_measured_and_nothing_that_serves_have_no_effects_to_speak_of() -> None:
    assert effects([]) == []
    (only,) = effects([({"a": 1}, None), ({"a": 2}, None)])
    assert only.share == 0
