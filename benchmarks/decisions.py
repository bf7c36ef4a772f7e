"""How often the chosen cell is the true best, and what is lost when it is not: replicates, ties, order, drift.

    python benchmarks/decisions.py [--worlds 2000] [--seed 7]

Simulated providers, not servers: six cells (kv_bits x max_batch) whose true throughput differs as published
figures of real Macs do, with noise between starts and between requests, and a machine that slows down as it
warms up. The decisions are the product's own: `core/pipeline.py`, `enough` of `core/noise.py`. Regret is how much slower
the chosen cell truly is than the best one, in percent. Optuna's TPE is shown where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean

from autotuned.core import noise
from autotuned.core.model import STAGE_CLIMB, Replicate, Trial
from autotuned.core.pipeline import wins
from autotuned.core.stats import median
from autotuned.shared.knobs import Knobs

CELLS = [Knobs(bits, batch, 2000) for bits in (None, 4, 8) for batch in (1, 2)]
USUAL = 3


@dataclass(frozen=True)
class World:
    """One machine with one model: the true tokens per second of each cell, and its noise.

    `start` is the relative spread between two starts of a cell, `request` that between two requests of one
    start, `drift` the share of speed that is lost over a whole run as the machine warms up.
    """

    truth: tuple[float, ...]
    start: float
    request: float
    drift: float

    def served(self, cell: int, position: float, source: random.Random) -> Iterator[float]:
        """Tokens per second of one start after another share `position` (0 to 1) of the run."""
        level = self.truth[cell] * (1 - self.drift * position) * source.gauss(1, self.start)
        while True:
            yield max(0.01, level * source.gauss(1, self.request))


def worlds(count: int, source: random.Random, *, drift: float) -> list[World]:
    """Machines like those measured: 8 bits beat 4 by 12 to 58 % on an M1 Air, and there are near ties.

    A second slot costs up to 5 % of a single stream; run-to-run spread on a warm Air is several percent.
    """
    made = []
    for _ in range(count):
        base = source.uniform(2, 50)
        eight = 1 + source.choice([source.uniform(-0.02, 0.02), source.uniform(-0.15, 0.15)])
        four = eight / (
            1 + source.choice([source.uniform(-0.02, 0.02), source.uniform(0.12, 0.58)])
        )
        slots = [1, 1 - source.uniform(0, 0.05)]
        truth = tuple(base * bits * slot for bits in (1, four, eight) for slot in slots)
        made.append(World(truth, source.uniform(0.003, 0.015), source.uniform(0.005, 0.04), drift))
    return made


def trial(cell: int, figures: Sequence[float]) -> Trial:
    """A feasible cell with these figures; a faster one has the shorter TTFT."""
    replicates = tuple(Replicate(tps=tps, ttft_ms=1e5 / tps) for tps in figures)
    ttft = max(1e5 / tps for tps in figures)
    return Trial(
        STAGE_CLIMB,
        "m",
        1,
        CELLS[cell],
        replicates,
        None,
        tps_median=median(figures),
        ttft_p95_ms=ttft,
    )


Choice = tuple[int, int]
"""The chosen cell, and how many requests that took."""


def climb(
    world: World, source: random.Random, *, replicates: int | None, epsilon: float, order: str
) -> Choice:
    """The product's hill climb; `replicates` None lets it adapt."""
    cells = list(range(len(CELLS)))
    if order == "reverse":
        cells.reverse()
    elif order == "random":
        source.shuffle(cells)
    history: list[Trial] = []
    best: tuple[int, Trial] | None = None
    requests = 0
    for index, cell in enumerate(cells):
        figures: list[float] = []
        for tps in world.served(cell, index / len(cells), source):
            figures.append(tps)
            if replicates is None:
                if noise.enough(history, figures, USUAL, epsilon):
                    break
            elif len(figures) >= replicates:
                break
        requests += len(figures)
        ended = trial(cell, figures)
        kept = wins(ended, best[1] if best else None, epsilon)
        history.append(replace(ended, kept=kept))
        if kept:
            best = cell, ended
    return best[0] if best else 0, requests


def random_search(world: World, source: random.Random, budget: int) -> Choice:
    """The same number of requests, each on a random cell that is started for it; the best mean wins."""
    seen: dict[int, list[float]] = {}
    for index in range(budget):
        cell = source.randrange(len(CELLS))
        seen.setdefault(cell, []).append(next(world.served(cell, index / budget, source)))
    return max(seen, key=lambda cell: mean(seen[cell])), budget


def tpe(world: World, source: random.Random, budget: int) -> Choice:
    """Optuna's TPE with the same number of requests."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=source.randrange(2**31))
    study = optuna.create_study(direction="maximize", sampler=sampler)

    def objective(asked: optuna.Trial) -> float:
        bits = asked.suggest_categorical("kv_bits", [0, 1, 2])
        batch = asked.suggest_categorical("max_batch", [0, 1])
        return next(world.served(2 * bits + batch, asked.number / budget, source))

    study.optimize(objective, n_trials=budget)
    return 2 * study.best_params["kv_bits"] + study.best_params["max_batch"], budget


def row(name: str, made: Sequence[World], choose: Callable[[World], Choice]) -> None:
    """Run one way of choosing in every world, and print its line."""
    regrets, hits, requests = [], 0, 0
    for world in made:
        cell, used = choose(world)
        best = max(world.truth)
        regrets.append(1 - world.truth[cell] / best)
        hits += world.truth[cell] == best
        requests += used
    regrets.sort()
    share = requests / len(made)
    print(
        f"{name:<44}{hits / len(made):>9.0%}{mean(regrets):>10.2%}"
        f"{regrets[int(0.95 * len(regrets))]:>10.2%}{share:>10.1f}"
    )


def table(made: Sequence[World], source: random.Random) -> None:
    """One line for each way of choosing."""
    print(f"{'':<44}{'true best':>9}{'regret':>10}{'p95':>10}{'requests':>10}")
    ways: list[tuple[str, int | None, float, str]] = [
        (f"{count} replicates, tie 2 %, {order}", count, 0.02, order)
        for count in (1, 3, 5)
        for order in ("axis", "reverse", "random")
    ]
    ways += [(f"3 replicates, tie {e:.1%}, axis", 3, e, "axis") for e in (0.005, 0.05)]
    ways += [(f"adaptive, tie 2 %, {order}", None, 0.02, order) for order in ("axis", "random")]
    for name, count, epsilon, order in ways:
        choose = partial(climb, source=source, replicates=count, epsilon=epsilon, order=order)
        row(name, made, choose)
    budget = USUAL * len(CELLS)
    row(f"random search, {budget} requests", made, lambda w: random_search(w, source, budget))
    if importlib.util.find_spec("optuna"):
        few = made[: max(1, len(made) // 20)]
        name = f"Optuna TPE, {budget} requests ({len(few)} machines)"
        row(name, few, lambda w: tpe(w, source, budget))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    flags = parser.parse_args()
    for drift in (0.0, 0.08):
        source = random.Random(flags.seed)
        print(f"\n{flags.worlds} machines, thermal drift {drift:.0%} over a run")
        table(worlds(flags.worlds, source, drift=drift), source)


if __name__ == "__main__":
    main()
