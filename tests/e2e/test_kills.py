"""The agent killed at every named step, alone and together with its guardian, and what is true afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autotuned.host.failpoint import POINTS, VARIABLE
from tests.support.home import DEADLINE_S, Home, Y, kill, poll, port_is_free
from tests.support.live import Foreground, LaunchdJob
from tests.support.systemd import SystemdUnit

BRIEF = {"replicates": [{"ttft_ms": 20, "total_ms": 30}]}
LASTING = {"replicates": [{"ttft_ms": 60_000, "total_ms": 61_000}]}

IN_A_RUN = [name for name in POINTS if name.startswith(("drain.", "apply.", "restore.", "file."))]
IN_A_RUN.remove("restore.held")
IN_A_RUN.remove("restore.died")
ROLLING_BACK = ["restore.died", "rollback.begun", "rollback.replaced", "rollback.done"]
BEFORE_A_ROLL_BACK = ["apply.recorded", "apply.replaced", "restore.asked", "restore.restored"]
RECOVERING = ["recover.begun", "recover.done", "restore.begun", "restore.asked", "restore.released"]
BY_HAND = ["restore.held", "restore.asked", "drain.asked"]


def test_every_failpoint_is_exercised_here() -> None:
    assert {*IN_A_RUN, *RECOVERING, *BY_HAND, *ROLLING_BACK} == set(POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its guardian"])
@pytest.mark.parametrize("point", [*IN_A_RUN, "file.written:2", "file.renamed:3"])
def test_a_kill_at_any_step_of_a_run_loses_no_live_provider(
    home: Home, point: str, together: bool
) -> None:
    name, _, nth = point.partition(":")
    home.provider({Y: BRIEF})
    job = LaunchdJob(home)
    die_at(home, f"{name}:hang:{nth or 1}")
    home.start_daemon()
    flags = ["--port", str(home.port), "--stage2-replicates", "1", "--max-batch-axis", "1"]
    if name.startswith("apply."):
        flags.append("--apply")
    client = home.ctl_begin("start", "--drain", "--candidate-models", Y, *flags)
    end(home, together=together)
    client.communicate(timeout=DEADLINE_S)
    if not together:
        poll(lambda: not candidates(home), "the candidate is gone")
        poll(job.back, "the live provider is back without anybody's help")
    home.start_daemon()
    assert_sound(home, job)


@pytest.mark.slow
@pytest.mark.parametrize("point", RECOVERING)
def test_a_kill_in_the_recovery_is_recovered_from_too(home: Home, point: str) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    die_at(home, f"{point}:kill")
    doomed = subprocess.run(
        [sys.executable, "-m", "autotuned"], env=home.environ, timeout=DEADLINE_S, check=False
    )
    assert doomed.returncode == -signal.SIGKILL
    assert not candidates(home)
    del home.environ[VARIABLE]
    home.start_daemon()
    assert_sound(home, job)


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its guardian"])
@pytest.mark.parametrize("point", BY_HAND)
def test_a_foreground_process_comes_back_exactly_once(
    home: Home, point: str, together: bool
) -> None:
    home.provider({Y: BRIEF})
    live = Foreground(home, LIVE="yes")
    die_at(home, f"{point}:hang")
    home.begin(Y, drain=True, restart_foreground=True, stage2_replicates=1)
    end(home, together=together)
    if not together:
        poll(lambda: not port_is_free(live.port), "it is back without anybody's help")
    home.start_daemon()
    poll(lambda: not port_is_free(live.port), "it serves again")
    assert len(live.running()) == 1
    first, second = live.starts()
    assert first["environment"] == second["environment"]
    assert first["argv"] == second["argv"]
    assert home.rpc("status")["lease"] is None


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True], ids=["alone", "with its guardian"])
@pytest.mark.parametrize("point", [*BEFORE_A_ROLL_BACK, *ROLLING_BACK])
def test_a_kill_while_an_apply_is_taken_back_leaves_the_old_configuration_in_force(
    home: Home, point: str, together: bool
) -> None:
    home.provider({Y: BRIEF}, today={"never_starts": [Y], "refuses_after_s": 0.3})
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    before = job.config.read_bytes()
    die_at(home, f"{point}:hang")
    home.start_daemon()
    home.begin(Y, drain=True, apply=True, stage2_replicates=1)
    end(home, together=together)
    if not together:
        poll(job.serving, "the live provider serves without anybody's help")
    home.start_daemon()
    poll(lambda: home.rpc("status")["lease"] is None, "nothing is owed")
    poll(job.serving, "the live provider serves")
    assert_sound(home, job)
    assert job.config.read_bytes() == before
    assert home.sql("SELECT applied FROM tune_runs") == [(0,)]


def die_at(home: Home, words: str) -> None:
    """The next agent of this home dies, or hangs, there."""
    home.environ[VARIABLE] = words


def end(home: Home, *, together: bool) -> None:
    """Wait until the agent hangs at its point, and kill it; its guardian first, where together."""
    assert home.daemon is not None
    agent = psutil.Process(home.daemon.pid)
    poll(lambda: agent.status() == psutil.STATUS_STOPPED, "the point is reached", 60)
    if together:
        for guardian in guardians(agent):
            guardian.kill()
    kill(home.daemon)
    home.environ.pop(VARIABLE, None)


def guardians(agent: psutil.Process) -> list[psutil.Process]:
    """The guardians of this agent."""
    found = []
    for child in agent.children():
        with contextlib.suppress(psutil.Error):
            if any("guardian" in word for word in child.cmdline()):
                found.append(child)
    return found


def candidates(home: Home) -> list[psutil.Process]:
    """Live candidates of this home."""
    found = []
    for process in home.processes():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if str(home.port) in words and "autotunectl" not in words:
                found.append(process)
    return found


def drained_and_dead(home: Home) -> None:
    """A run that measures, with its live provider drained; then agent and guardian are killed at once."""
    home.begin(Y, drain=True)
    poll(lambda: any(entry["request"] == "replicate" for entry in home.calls("request")))
    assert home.daemon is not None
    home.daemon.send_signal(signal.SIGSTOP)
    for guardian in guardians(psutil.Process(home.daemon.pid)):
        guardian.kill()
    kill(home.daemon)
    assert candidates(home)


def assert_sound(home: Home, job: LaunchdJob | SystemdUnit) -> None:
    """What is promised after a crash."""
    poll(job.back, "the live provider is back")
    assert not candidates(home)
    assert port_is_free(home.port)
    poll(
        lambda: home.rpc("status")["lease"] is None,
        "it was watched for long enough, and nothing is owed",
    )
    assert poll(lambda: home.rpc("status")["live_provider"])["state"] == "running"
    ends = home.sql("SELECT exit_reason, ended_at_utc FROM tune_runs")
    assert ends in ([], [("interrupted", None)])  # none: it died before there was a run
    assert home.sql("PRAGMA quick_check") == [("ok",)]
    assert home.sql("SELECT count(*) FROM leases WHERE state != 'released'") == [(0,)]
    assert lock_is_free(home)
    sequence = [row[0] for row in home.sql("SELECT seq FROM events ORDER BY seq")]
    assert sequence == [*range(1, len(sequence) + 1)]


def run_folder(home: Home) -> Path:
    return home.path / ".config" / "macprovider" / "run"


def lock_is_free(home: Home) -> bool:
    """Nobody holds the lock of the live provider."""
    descriptor = os.open(run_folder(home) / "drain.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def journal(home: Home) -> dict[str, object]:
    return dict(json.loads((run_folder(home) / "lease.json").read_text(encoding="utf-8")))
