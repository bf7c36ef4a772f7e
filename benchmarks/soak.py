"""Soak: many tiny runs and many more status calls against the real agent, and what it holds on to meanwhile.

    python benchmarks/soak.py [RUNS] [CALLS]          defaults: 200 runs, 10,000 calls

The scripted provider answers within milliseconds, so that the agent's own work is all there is. Printed is a
curve of resident memory, descriptors, threads, files and database size; the verdict compares the last
fifth with the first fifth after retention has set in. Exit 1 where something grows.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.home import Home, Y, home

RETAINED = 20
POINTS = 20
DEFAULTS = (200, 10_000)
ALLOWED = {"rss_mb": 6.0, "descriptors": 2, "threads": 1, "files": 6, "database_mb": 1.0}
"""How much the last fifth's median may lie above the first fifth's; noise of the allocator and of WAL checkpoints."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the agent holds after so many runs and calls."""

    runs: int
    calls: int
    rss_mb: float
    descriptors: int
    threads: int
    files: int
    database_mb: float


def sample(at: Home, agent: psutil.Process, runs: int, calls: int) -> Sample:
    """Look from outside."""
    config, state = at.path / ".config", at.path / "state"
    database = config / "macprovider"
    return Sample(
        runs,
        calls,
        agent.memory_info().rss / 2**20,
        agent.num_fds(),
        agent.num_threads(),
        sum(path.is_file() for folder in (config, state) for path in folder.rglob("*")),
        sum(path.stat().st_size for path in database.glob("autotune.sqlite*")) / 2**20,
    )


def call_status(at: Home, count: int) -> None:
    """So many calls: most over one connection, every hundredth over one of its own."""
    with at.connect() as connection, connection.makefile("rb") as lines:
        for number in range(count):
            if number % 100 == 99:
                at.rpc("status")
                continue
            message = {"jsonrpc": "2.0", "id": number, "method": "status"}
            connection.sendall(json.dumps(message).encode() + b"\n")
            if b'"result"' not in lines.readline():
                message_of_failure = "a status call was refused"
                raise SystemExit(message_of_failure)


def soak(at: Home, runs: int, calls: int, tell: Callable[[Sample], None]) -> list[Sample]:
    """All of it; a sample about every twentieth part."""
    at.settings(at.private_program())
    at.provider({Y: {"replicates": [{"ttft_ms": 1, "total_ms": 2}]}})
    at.start_daemon()
    assert at.daemon is not None
    agent = psutil.Process(at.daemon.pid)
    found, done, asked = [], 0, 0
    for point in range(1, POINTS + 1):
        while done < runs * point // POINTS:
            document = at.tune(
                Y, timeout=60, retain_runs=RETAINED, stage2_replicates=1, target_context=256
            )
            if document["exit_reason"] != "ok":
                message = f"run {done} ended {document['exit_reason']}: {document['error']}"
                raise SystemExit(message)
            done += 1
        due = calls * point // POINTS - asked
        call_status(at, due)
        asked += due
        found.append(sample(at, agent, done, asked))
        tell(found[-1])
    return found


def growth(samples: list[Sample]) -> list[str]:
    """What lies higher at the end than after the warm-up, in words."""
    settled = [one for one in samples if one.runs > 2 * RETAINED] or samples[len(samples) // 4 :]
    fifth = max(1, len(settled) // 5)
    found = []
    for name, allowed in ALLOWED.items():
        first = statistics.median(getattr(one, name) for one in settled[:fifth])
        last = statistics.median(getattr(one, name) for one in settled[-fifth:])
        if last > first + allowed:
            found.append(f"{name} grew from {first:.1f} to {last:.1f}")
    return found


def main() -> int:
    """Print the curve and the verdict."""
    words = [int(word) for word in sys.argv[1:]]
    runs, calls = (*words, *DEFAULTS[len(words) :])[:2]
    print(f"{runs} runs, {calls} status calls, {RETAINED} runs retained")
    heads = ("runs", "calls", "rss MB", "descriptors", "threads", "files", "database MB")
    print("".join(f"{head:>13}" for head in heads))

    def tell(one: Sample) -> None:
        print(
            f"{one.runs:>13}{one.calls:>13}{one.rss_mb:>13.1f}{one.descriptors:>13}{one.threads:>13}"
            f"{one.files:>13}{one.database_mb:>13.2f}",
            flush=True,
        )

    began = time.monotonic()
    with home() as at:
        found = soak(at, runs, calls, tell)
    grown = growth(found)
    print(f"{time.monotonic() - began:.0f} s; " + ("; ".join(grown) or "nothing grows"))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
