"""Resume: the agent killed with -9 at random moments, the run gone on with, until it ends; against one left alone.

    python benchmarks/resume.py [40] [--seed 7]

A ladder of three candidates, the second feasible, three cells: one run is left alone. Each round then starts the same
run, kills the agent (in half of the rounds more than once) at moments drawn over the whole length of such a run,
starts the next agent and resumes the run. Compared is all that a run decides: model, knobs, the cells with
fits and kept, failures, alternates, recipe hash; and that no trial was measured twice that was whole in the store.
Exit 1 where a round came to something else.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.e2e.test_resume import AXES, outcome
from tests.support.home import Home, RpcError, X, Y, Z, home, kill, poll

MOST_KILLS = 4
CELLS = {"unset/1/2000": 60, "4/1/2000": 20, "8/1/2000": 200}
"""Tokens per second, so far apart that a busy machine does not change their order."""
LADDER: dict[str, Any] = {
    X: {"exit_code": 1},
    Y: {
        "load_s": 0.1,
        "cells": {k: {"replicates": [{"tps": v, "ttft_ms": 5}]} for k, v in CELLS.items()},
    },
    Z: {},
}


def whole(at: Home, run_id: str) -> list[tuple[Any, ...]]:
    """The trials in the store that were not cut short."""
    return at.sql(
        "SELECT t.id, t.stage, t.kv_bits, t.agg_throughput_tps FROM tune_trials t JOIN trial_details d ON d.trial_id = t.id "
        "WHERE t.run_id = ? AND coalesce(d.failure_kind, '') NOT IN ('interrupted', 'budget', 'internal') ORDER BY t.id",
        run_id,
    )


def next_agent(at: Home) -> None:
    """After a kill: wait until nothing of the old agent is left, then start another one."""
    poll(lambda: not at.processes(), "candidate and guardian are gone")
    at.start_daemon()


def ended(at: Home, run_id: str, within_s: float) -> bool:
    """Whether the run ends by itself within so many seconds."""
    return "timed_out" not in at.rpc("wait", run_id=run_id, timeout_s=within_s)


def disturbed(
    at: Home, length_s: float, kills: int, source: random.Random
) -> tuple[str, int, list[str]]:
    """One run that is killed so often, unless it ends before; its id, kills that met it, and what was lost."""
    run_id, met, lost = at.begin(X, Y, Z, **AXES), 0, list[str]()
    for _ in range(kills):
        if ended(at, run_id, source.uniform(0, length_s)):
            break
        assert at.daemon is not None
        kill(at.daemon)
        met += 1
        kept = whole(at, run_id)
        next_agent(at)
        try:
            at.rpc("start", resume=run_id, port=at.port)
        except RpcError as error:  # it had ended just before the kill
            if at.rpc("result", run_id=run_id)["exit_reason"] != "ok":
                lost.append(f"cannot go on: {error.message}")
            break
        if whole(at, run_id)[: len(kept)] != kept:
            lost.append("a whole trial is gone")
    if not ended(at, run_id, 60):
        lost.append("does not end")
    return run_id, met, lost


def main() -> int:
    """All rounds, a line of result, and what was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", type=int, nargs="?", default=40)
    parser.add_argument("--seed", type=int, default=7)
    flags = parser.parse_args()
    source, lost, kills = random.Random(flags.seed), [], []
    with home() as at:
        at.settings(at.private_program())
        at.provider(LADDER)
        began = time.monotonic()
        alone = at.tune(X, Y, Z, **AXES)
        length_s = time.monotonic() - began
        assert alone["exit_reason"] == "ok", alone["error"]
        expected, trials = outcome(alone), len(whole(at, alone["run_id"]))
        for number in range(flags.rounds):
            wanted = 1 if number % 2 else source.randint(2, MOST_KILLS)
            run_id, met, found = disturbed(at, length_s, wanted, source)
            kills.append(met)
            document = at.rpc("result", run_id=run_id)
            if document["exit_reason"] != "ok" or outcome(document) != expected:
                found.append(f"ended {document['exit_reason']} with another outcome")
            if len(whole(at, run_id)) != trials:
                found.append(f"{len(whole(at, run_id))} trials instead of {trials}")
            lost += [f"round {number}, {met} kills: {what}" for what in found]
    print(
        f"{flags.rounds} runs of {length_s:.1f} s, {sum(kills)} kills that met one "
        f"({statistics.mean(kills):.1f} a run): {flags.rounds - len({one.split(',')[0] for one in lost})} ended like the one left alone"
    )
    print("\n".join(lost) or "nothing was lost")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
