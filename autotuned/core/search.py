"""Which cell of a large space is measured next, and what each knob has turned out to do.

A pure fold over the cells measured so far: from the defaults, one knob at a time around the best; then the most
promising cell of all that are left, and in turn with it of those that Optuna's sampler proposes through ask and
tell. All of it is worked out anew before each step, so a crash, a resume and a replay see the same search.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from autotuned.core.stats import median
from autotuned.shared.knobs import Value

if TYPE_CHECKING:
    import optuna

Cell = Mapping[str, Value]

GRID_CELLS = 24
"""Up to so many cells `auto` measures all of them."""
SHARE, LEAST_TRIALS = 0.08, 16
PATIENCE = 10
"""The search ends when so many cells in a row have not gained the width of a tie."""
SCREENED = 3
"""Of a longer axis its ends and its middle are screened."""
PAIRS = 0.3
"""How much of the likeness of two cells is that they agree in pairs of knobs, not in single ones."""
DARING = (0.5, 2.0)
"""How much being uncertain counts for a cell, among all cells and among those that the sampler proposes."""
PROPOSALS = 16
DOUBT = 0.05
"""The variance of a measurement beside that of the whole space."""
WALL = 0.3
"""What does not serve counts as so much slower than the slowest that does, in the logarithm."""


class Measured(NamedTuple):
    """A cell by its place in the space, and its tokens per second; None where it was not feasible."""

    place: int
    tps: float | None


def trials_for(cells: int) -> int:
    """How many cells `tpe` measures where nobody says."""
    return min(cells, max(LEAST_TRIALS, round(SHARE * cells)))


def next_cell(
    space: Sequence[Cell], tried: Sequence[Measured], trials: int, epsilon: float, seed: int
) -> int | None:
    """The place of the next cell in `space`, whose first cell is the defaults; None when the search is over."""
    if len(tried) >= min(trials, len(space)) or _stale(tried, epsilon):
        return None
    if not tried:
        return 0
    done = {entry.place for entry in tried}
    left = [index for index in range(len(space)) if index not in done]
    best = space[max(tried, key=lambda entry: (entry.tps or 0.0, -entry.place)).place]
    screened = _screened(space, tried, left, best)
    if screened is not None:
        return screened
    turn = len(tried) % 2
    among = _proposed(space, tried, left, seed, PROPOSALS) if turn else left
    return _promising(space, tried, among, DARING[turn])


def _stale(tried: Sequence[Measured], epsilon: float) -> bool:
    best, since = 0.0, 0
    for entry in tried:
        gained = (entry.tps or 0.0) > best * (1 + epsilon)
        best = max(best, entry.tps or 0.0)
        since = 0 if gained else since + 1
    return best > 0 and since >= PATIENCE


def _screened(
    space: Sequence[Cell], tried: Sequence[Measured], left: Sequence[int], best: Cell
) -> int | None:
    """The cell nearest to the best with a value that no cell so far has had.

    Once there is none, with a value that did not serve anywhere: beside the best of now it may.
    """
    failed: list[int] = []
    for name, axis in _axes(space).items():
        few = axis if len(axis) <= SCREENED else [axis[0], axis[len(axis) // 2], axis[-1]]
        for value in few:
            figures = [entry.tps for entry in tried if space[entry.place][name] == value]
            wanted = {**best, name: value}
            if not figures:
                return _nearest(space, [i for i in left if space[i][name] == value], wanted)
            if not any(figures):
                failed += [i for i in left if space[i] == wanted]
    return failed[0] if failed else None


def _promising(
    space: Sequence[Cell], tried: Sequence[Measured], among: Sequence[int], daring: float
) -> int:
    """The cell with the highest expectation and `daring` times its uncertainty: regression by a Gaussian process.

    Cells are alike as far as they agree in knobs and pairs of them.
    """
    import numpy as np  # noqa: PLC0415 - comes with the sampler, and is as heavy

    axes = _axes(space)

    def alike(ones: Sequence[int], others: Sequence[int]) -> np.ndarray:
        rows, columns = (
            np.array([[axis.index(space[i][name]) for name, axis in axes.items()] for i in places])
            for places in (ones, others)
        )
        same = (rows[:, None, :] == columns[None, :, :]).sum(axis=2)
        knobs = len(axes)
        pairs = same * (same - 1) / max(1, knobs * (knobs - 1))
        return np.asarray((1 - PAIRS) * same / knobs + PAIRS * pairs)

    known = [math.log(entry.tps) for entry in tried if entry.tps]
    wall = min(known, default=0.0) - WALL
    figures = np.array([math.log(entry.tps) if entry.tps else wall for entry in tried])
    places = [entry.place for entry in tried]
    between = alike(places, places) + DOUBT * np.eye(len(tried))
    near = alike(among, places)
    expected = near @ np.linalg.solve(between, figures - figures.mean())
    certain = (near * np.linalg.solve(between, near.T).T).sum(axis=1)
    worth = expected + daring * figures.std() * np.sqrt(np.clip(1 - certain, 0, None))
    return among[int(worth.round(9).argmax())]  # the last digits differ between machines


def _proposed(
    space: Sequence[Cell], tried: Sequence[Measured], left: Sequence[int], seed: int, count: int
) -> list[int]:
    """The cells still to be measured that are nearest to `count` that the sampler proposes."""
    import optuna  # noqa: PLC0415 - an extra, and heavy: only a search of this kind loads it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = _axes(space)
    kinds = {name: _distribution(axis) for name, axis in axes.items()}
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(tried), multivariate=True, n_startup_trials=0
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for entry in tried:
        cell = space[entry.place]
        params = {name: axis.index(cell[name]) for name, axis in axes.items()}
        # What the sampler is told has failed it leaves out of account; the slowest of all is what it avoids.
        told = optuna.trial.create_trial(params=params, distributions=kinds, value=entry.tps or 0.0)
        study.add_trial(told)
    proposals = [study.ask(kinds).params for _ in range(count)]
    wanted = [{name: axes[name][place] for name, place in each.items()} for each in proposals]
    return sorted({_nearest(space, left, cell) for cell in wanted})


def _distribution(axis: Sequence[Value]) -> optuna.distributions.BaseDistribution:
    """Places on an axis: numbers keep their order, everything else has none."""
    import optuna  # noqa: PLC0415 - as above

    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in axis):
        return optuna.distributions.IntDistribution(0, len(axis) - 1)
    return optuna.distributions.CategoricalDistribution(range(len(axis)))


def _axes(space: Sequence[Cell]) -> dict[str, list[Value]]:
    return {name: list(dict.fromkeys(cell[name] for cell in space)) for name in space[0]}


def _nearest(space: Sequence[Cell], among: Iterable[int], wanted: Cell) -> int:
    return min(among, key=lambda index: (_distance(space[index], wanted), index))


def _distance(one: Cell, other: Cell) -> int:
    return sum(one[name] != other[name] for name in one)


class Effect(NamedTuple):
    """What one knob does: the median tokens per second of the feasible cells with each value (None without one),
    and the share of the spread between feasible cells that it explains by itself."""

    name: str
    medians: list[tuple[Value, float | None]]
    share: float


def effects(measured: Sequence[tuple[Cell, float | None]]) -> list[Effect]:
    """The effect of each knob that took several values, the largest first."""
    knobs = measured[0][0] if measured else {}
    found = [_effect(name, measured) for name in knobs]
    several = [effect for effect in found if len(effect.medians) > 1]
    return sorted(several, key=lambda effect: -effect.share)


def _effect(name: str, measured: Sequence[tuple[Cell, float | None]]) -> Effect:
    groups: dict[Value, list[float]] = {cell[name]: [] for cell, _ in measured}
    for cell, tps in measured:
        if tps:
            groups[cell[name]].append(tps)
    logs = [[math.log(tps) for tps in group] for group in groups.values() if group]
    middle = fmean(value for group in logs for value in group) if logs else 0.0
    whole = sum((value - middle) ** 2 for group in logs for value in group)
    between = sum(len(group) * (fmean(group) - middle) ** 2 for group in logs)
    medians = [(value, median(group) if group else None) for value, group in groups.items()]
    return Effect(name, medians, between / whole if whole else 0.0)
