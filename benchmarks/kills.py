"""The agent killed with -9 at random moments of a run with a drained live provider; what was lost.

    python benchmarks/kills.py [200] [--seed 7] [--together 0.25] [--applying 0.3]

A real agent, a scripted launchd with an asynchronous bootout, a scripted provider. Each round starts a
run with --drain, kills the agent at a moment drawn over the whole length of such a run (in a share of
the rounds together with its guardian, in another share while an apply is being taken back because the provider
does not start with it), waits until everything is as it should be, and starts the next
agent. Times are seconds after the kill. Ends with 1 when anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

if TYPE_CHECKING:
    from tests.support.home import Home
    from tests.support.live import LaunchdJob

GONE_S, BACK_S = 3.0, 10.0
"""What is promised while the guardian lives."""
LONGEST_S = 60.0
TAKING_BACK_S = 3.0
"""How much longer a run takes whose apply must be taken back."""
REPLICATE = {"ttft_ms": 60, "total_ms": 120}
AXES: dict[str, Any] = {"kv_bits_axis": [None, 8], "stage2_replicates": 2}


@dataclass
class Point:
    """All rounds that were killed in the same state of the lease."""

    gone: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Round(NamedTuple):
    """What one kill came to; seconds after it."""

    state: str
    gone: float
    back: float
    lost: list[str]


def candidates(home: Home) -> int:
    """How many candidates of this home live now."""
    found = 0
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        ours = any(home.program in word for word in words[:4])
        found += ours and "--no-join" in words and process.info["status"] != psutil.STATUS_ZOMBIE
    return found


def guardians(agent: psutil.Process) -> list[psutil.Process]:
    """The guardians of this agent."""
    found = []
    for child in agent.children():
        with contextlib.suppress(psutil.Error):
            if any("guardian" in word for word in child.cmdline()):
                found.append(child)
    return found


def state_of(folder: Path) -> str:
    """The state of the lease in the journal."""
    with contextlib.suppress(OSError, ValueError):
        return str(json.loads((folder / "lease.json").read_text(encoding="utf-8"))["state"])
    return "none"


def one(home: Home, job: LaunchdJob, moment: float, *, together: bool, applying: bool) -> Round:
    """One round: a run, a kill, and what is true afterwards."""
    from tests.support.home import Y, kill

    folder = home.path / ".config" / "macprovider" / "run"
    assert home.daemon is not None
    (folder / "lease.json").unlink(missing_ok=True)
    before = job.config.read_bytes()
    home.begin(Y, drain=True, apply=applying, **AXES)
    time.sleep(moment)
    if together:
        home.daemon.send_signal(signal.SIGSTOP)
        for guardian in guardians(psutil.Process(home.daemon.pid)):
            guardian.kill()
    state = state_of(folder) + (" apply" if applying else "") + (" +guardian" if together else "")
    killed = time.monotonic()
    kill(home.daemon)
    if together:
        home.start_daemon()
    gone, back, lost = watched(home, job, folder, killed)
    if not together:
        home.start_daemon()
    lost += unsound(home, folder)
    if job.config.read_bytes() != before:
        lost.append("CONFIGURATION")
    if not job.serving():
        lost.append("NOT SERVING")
    return Round(state, gone, back, lost)


def watched(
    home: Home, job: LaunchdJob, folder: Path, killed: float
) -> tuple[float, float, list[str]]:
    """When the candidate was gone and the live provider back, and what never came true."""
    from tests.support.home import port_is_free

    gone = back = None
    most = 0
    while time.monotonic() - killed < LONGEST_S and (gone is None or back is None):
        alive = candidates(home)
        most = max(most, alive)
        now = time.monotonic() - killed
        if gone is None and alive == 0 and port_is_free(home.port):
            gone = now
        if back is None and job.back() and state_of(folder) in ("released", "none"):
            back = now
        time.sleep(0.01)
    wrong = {
        "ORPHAN": gone is None,
        "PROVIDER LOST": back is None,
        f"{most} CANDIDATES AT ONCE": most > 1,
    }
    return gone or LONGEST_S, back or LONGEST_S, [name for name, true in wrong.items() if true]


def unsound(home: Home, folder: Path) -> list[str]:
    """What is wrong with database, lock and lease after the next start."""
    from tests.support.home import poll

    found = []
    if home.sql("PRAGMA integrity_check") != [("ok",)]:
        found.append("DATABASE")
    with contextlib.suppress(AssertionError):
        poll(lambda: home.rpc("status")["lease"] is None)
    if home.rpc("status")["lease"] is not None:
        found.append("LEASE OPEN")
    if home.sql("SELECT count(*) FROM leases WHERE state != 'released'") != [(0,)]:
        found.append("STORE'S LEASE OPEN")
    descriptor = os.open(folder / "drain.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found.append("LOCK HELD")
    finally:
        os.close(descriptor)
    return found


def spread(values: list[float]) -> str:
    """min / median / max."""
    return f"{min(values):5.2f} {statistics.median(values):5.2f} {max(values):5.2f}"


def main() -> None:
    """All rounds, the table, and 1 when anything was lost or a promise was broken."""
    from tests.support.home import Y, home
    from tests.support.live import LaunchdJob

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--together", type=float, default=0.25, help="share killed with the guardian"
    )
    parser.add_argument(
        "--applying", type=float, default=0.3, help="share with an apply that must be taken back"
    )
    flags = parser.parse_args()
    dice = random.Random(flags.seed)
    points: dict[str, Point] = defaultdict(Point)
    with home() as made:
        made.provider({Y: {"replicates": [REPLICATE]}}, today={"never_starts": [Y]})
        job: Any = LaunchdJob(made, dying_s=0.5, keep_alive=True, throttle_s=1.0)
        made.start_daemon()
        began = time.monotonic()
        document = made.tune(Y, drain=True, **AXES)
        length = time.monotonic() - began
        assert document["exit_reason"] == "ok", document["error"]
        print(
            f"a whole run takes {length:.2f} s; {flags.rounds} kills, seed {flags.seed}", flush=True
        )
        for _ in range(flags.rounds):
            together = dice.random() < flags.together
            applying = dice.random() < flags.applying
            begin = 0.6 * length if applying else 0.0
            moment = dice.uniform(begin, length + (TAKING_BACK_S if applying else 0.0))
            ended = one(made, job, moment, together=together, applying=applying)
            point = points[ended.state]
            point.gone.append(ended.gone)
            point.back.append(ended.back)
            if ended.lost:
                point.lost += ended.lost
                print(f"after {moment:.3f} s, {ended.state}: {ended.lost}", flush=True)
    report(points, flags.rounds)


def report(points: dict[str, Point], rounds: int) -> None:
    """The table, and the verdict as exit code."""
    print("\nkilled while                 rounds   candidate gone      provider back       lost")
    print("                                      min  median max     min  median max")
    for state in sorted(points):
        point = points[state]
        print(
            f"{state:28} {len(point.gone):6}  {spread(point.gone)}   {spread(point.back)}  {len(point.lost)}"
        )
    alone = [point for state, point in points.items() if "+" not in state]
    late_gone = sum(value > GONE_S for point in alone for value in point.gone)
    late_back = sum(value > BACK_S for point in alone for value in point.back)
    lost = sum(len(point.lost) for point in points.values())
    print(f"{rounds} kills: {lost} with anything lost")
    print(
        f"guardian alive: {late_gone} candidates gone later than {GONE_S:g} s, {late_back} providers back later than {BACK_S:g} s"
    )
    sys.exit(1 if lost or late_gone or late_back else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
