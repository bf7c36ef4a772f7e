"""What an idle agent costs, and how quickly it answers with 10,000 runs in its store.

    python benchmarks/footprint.py [--runs 10000] [--clients 100] [--calls 500]

A real agent makes three real runs on a scripted provider; its store is then filled with copies of the last
one, and 10,000 events. Memory is resident memory; a wake-up is a voluntary context switch of any of its
threads. Latencies are those that a client sees, the socket and its own work included. Exit 1 where the
targets are missed: 60 MB idle before and after runs (20 MB more after the calls of all clients at once), 1
wake-up a second, 5 ms for `status`, `runs`, `result`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.home import Home, Y, home, poll

MEMORY_MB, AFTER_A_CROWD_MB, WAKE_UPS, ANSWER_MS = 60.0, 80.0, 1.0, 5.0
IDLE_S = 20.0
METHODS = ("version", "status", "runs", "result", "trials", "compare", "stale")
JUDGED = ("status", "runs", "result")
MODULES = (
    "asyncio, sqlite3",
    "pydantic",
    "structlog",
    "httpx",
    "jsonrpcserver",
    "ruamel.yaml",
    "psutil",
    "apscheduler.schedulers.asyncio",
    "huggingface_hub.hf_api",
    "autotuned.daemon",
    "click",
    "autotunectl.cli",
)
COPIES = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO {table}({columns}) SELECT {values} FROM n, {table} r WHERE {of}
"""


def imported(modules: str) -> tuple[float, float]:
    """Milliseconds, median of five fresh interpreters, and the resident MB after it."""
    tell = "import psutil; print(psutil.Process().memory_info().rss)"
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
        taken.append(time.perf_counter() - began)
    code = f"import {modules}; {tell}"
    rss = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return statistics.median(taken) * 1000, int(rss.stdout) / 2**20


def fill(database: Path, run_id: str, count: int) -> None:
    """Copies of one run, each a second older than the one before, with its trials, samples and document."""
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        trials = db.execute(
            "SELECT count(*), max(id) FROM tune_trials WHERE run_id = ?", (run_id,)
        ).fetchone()
        first = db.execute("SELECT max(id) FROM tune_trials").fetchone()[0]
        keys = {
            "run": run_id,
            "count": count,
            "first": first,
            "trials": trials[0],
            "last": trials[1],
        }
        name, moment = "r.run_id || '-' || i", "datetime(r.{0}, '-' || i || ' seconds')"
        new_id = ":first + (i - 1) * :trials + :last - r.{0} + 1"

        def copy(table: str, of: str, **changed: str) -> None:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            if table in ("samples", "events"):
                columns = columns[1:]
            values = ", ".join(changed.get(column, f"r.{column}") for column in columns)
            statement = COPIES.format(table=table, columns=", ".join(columns), values=values, of=of)
            db.execute(statement, keys)

        started = f"strftime('%Y-%m-%dT%H:%M:%fZ', {moment.format('started_at_utc')})"
        named = f"replace(r.details_json, r.run_id, {name})"
        copy("tune_runs", "r.run_id = :run", run_id=name, started_at_utc=started)
        copy("run_details", "r.run_id = :run", run_id=name, details_json=named)
        copy("tune_trials", "r.run_id = :run", run_id=name, id=new_id.format("id"))
        of = "r.trial_id IN (SELECT id FROM tune_trials WHERE run_id = :run)"
        copy("trial_details", of, trial_id=new_id.format("trial_id"))
        copy("samples", of, trial_id=new_id.format("trial_id"))
        keys["count"] = max(1, 10_000 // db.execute("SELECT count(*) FROM events").fetchone()[0])
        copy("events", "r.run_id = :run", run_id=name)


def wake_ups(pid: int) -> int:
    """Voluntary context switches of all threads so far; -1 where the system does not say."""
    try:
        return sum(
            int(line.split()[1])
            for status in Path(f"/proc/{pid}/task").glob("*/status")
            for line in status.read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )
    except OSError:
        return -1


def asked(at: Home, method: str, calls: int) -> list[float]:
    """Milliseconds of each of so many calls over one connection."""
    found = []
    with at.connect() as connection, connection.makefile("rb") as lines:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode() + b"\n"
        if method == "trials":
            run_id = at.rpc("runs", limit=1)["runs"][0]["run_id"]
            wanted = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"run_id": run_id}}
            line = json.dumps(wanted).encode() + b"\n"
        for _ in range(calls):
            began = time.perf_counter()
            connection.sendall(line)
            answer = lines.readline()
            found.append((time.perf_counter() - began) * 1000)
            assert b'"result"' in answer, answer[:300]
    return found


def crowd(at: Home, method: str, clients: int, calls: int) -> tuple[list[float], float]:
    """The same of so many clients at once, each with `calls` calls and a pause of 0.1 s between; and seconds in all."""
    found: list[float] = []
    ready = threading.Barrier(clients + 1)

    def client() -> None:
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode() + b"\n"
        with at.connect() as connection, connection.makefile("rb") as lines:
            ready.wait()
            for _ in range(calls):
                began = time.perf_counter()
                connection.sendall(line)
                assert b'"result"' in lines.readline()
                found.append((time.perf_counter() - began) * 1000)
                time.sleep(0.1)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return found, time.perf_counter() - began


def cut(values: Sequence[float], share: float) -> float:
    """The value that this share of `values` does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> int:
    """Print the tables and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--calls", type=int, default=500)
    flags = parser.parse_args()
    missed = []
    print(f"{'import in a fresh interpreter':<36}{'ms':>8}{'MB after':>10}")
    for modules in ("sys", *MODULES):
        took, rss = imported(modules)
        print(f"{modules:<36}{took:>8.0f}{rss:>10.1f}")
    with home() as at:
        at.settings(at.private_program())
        at.provider({Y: {"replicates": [{"ttft_ms": 1, "total_ms": 2}]}})
        began = time.perf_counter()
        agent = psutil.Process(at.start_daemon().pid)
        print(f"\nstart until it answers {time.perf_counter() - began:.2f} s")
        at.rpc("status")
        memory = {"idle, before any run": agent.memory_info().rss / 2**20}
        documents = [at.tune(Y, kv_bits_axis=[None, 4, 8], max_batch_axis=[1, 2]) for _ in range(3)]
        assert {document["exit_reason"] for document in documents} == {"ok"}
        memory["after three runs"] = agent.memory_info().rss / 2**20
        run_id = documents[-1]["run_id"]
        # Started again, so that what the copies cost at the start is seen too
        at.rpc("shutdown")
        poll(lambda: not agent.is_running() or agent.status() == psutil.STATUS_ZOMBIE)
        fill(at.database, run_id, flags.runs)
        began = time.perf_counter()
        agent = psutil.Process(at.start_daemon().pid)
        took = time.perf_counter() - began
        size = at.database.stat().st_size / 2**20
        print(f"start with {flags.runs} runs in the store ({size:.0f} MB) {took:.2f} s")
        print(
            f"\n{'round trip, ms':<12}{'p50':>9}{'p99':>9}   {flags.clients} clients: {'p50':>8}{'p99':>9}"
        )
        for method in METHODS:
            asked(at, method, 20)
            alone = asked(at, method, flags.calls)
            line = f"{method:<12}{cut(alone, 0.5):>11.2f}{cut(alone, 0.99):>9.2f}"
            if method != "trials":
                many, _ = crowd(at, method, flags.clients, 10)
                line += f"{cut(many, 0.5):>22.2f}{cut(many, 0.99):>9.2f}"
            print(line, flush=True)
            if method in JUDGED and cut(alone, 0.5) > ANSWER_MS:
                missed.append(f"{method} takes {cut(alone, 0.5):.1f} ms, more than {ANSWER_MS:g}")
        memory[f"after these calls, {flags.runs} runs"] = agent.memory_info().rss / 2**20
        before = wake_ups(agent.pid)
        time.sleep(IDLE_S)
        rate = (wake_ups(agent.pid) - before) / IDLE_S
        print()
        for when, rss in memory.items():
            print(f"{when:<36}{rss:>8.1f} MB")
            most = AFTER_A_CROWD_MB if "calls" in when else MEMORY_MB
            if rss > most:
                missed.append(f"{when}: {rss:.1f} MB, more than {most:g}")
        print(f"{'wake-ups a second':<36}{rate:>8.2f}")
        if rate > WAKE_UPS:
            missed.append(f"{rate:.2f} wake-ups a second, more than {WAKE_UPS:g}")
    print("; ".join(missed) or "all within the targets")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
