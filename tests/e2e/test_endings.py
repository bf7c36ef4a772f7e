"""How runs end when somebody or something ends them: cancels, the budget, signals, kills, and one agent a home."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from tests.support.home import Home, RpcError, X, Y, Z, kill, poll, port_is_free

SLOW_LOAD = {"load_s": 60}
SLOW_ANSWER = {"replicates": [{"ttft_ms": 60_000, "total_ms": 61_000}]}
STUBBORN = {"ignores_sigterm": True, "helper": True, **SLOW_ANSWER}
BRIEF = {"replicates": [{"ttft_ms": 300, "total_ms": 400}]}


def candidate_of(home: Home) -> psutil.Process:
    """The candidate that is alive now."""
    found = poll(
        lambda: [p for p in home.processes() if "serve" in p.cmdline()[1:6]], "a candidate is alive"
    )
    return found[0]


def measuring(home: Home) -> bool:
    """A replicate is being answered."""
    return any(entry["request"] == "replicate" for entry in home.calls("request"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_probe_ends_run_and_candidate(home: Home, number: signal.Signals) -> None:
    home.provider({Y: SLOW_ANSWER})
    home.begin(Y)
    poll(lambda: measuring(home))
    candidate = candidate_of(home)
    assert home.daemon is not None
    home.daemon.send_signal(number)
    assert home.daemon.wait(30) == 0
    assert not candidate.is_running()
    assert port_is_free(home.port)
    assert home.sql("SELECT exit_reason, ended_at_utc IS NOT NULL FROM tune_runs") == [
        ("interrupted", 1)
    ]
    assert home.sql("SELECT fits, notes FROM tune_trials") == [(0, "interrupted")]
    home.provider({Y: {}})
    home.daemon = None
    assert home.tune(Y)["exit_reason"] == "ok"


def test_ctrl_c_in_start_wait_cancels_and_exits_130(home: Home) -> None:
    home.provider({Y: SLOW_LOAD})
    home.start_daemon()
    client = home.ctl_begin("start", "--wait", "--candidate-models", Y, "--port", str(home.port))
    candidate_of(home)
    client.send_signal(signal.SIGINT)
    out, err = client.communicate(timeout=30)
    assert client.returncode == 130
    assert out == ""
    assert "cancelling" in err
    assert home.sql("SELECT exit_reason FROM tune_runs") == [("interrupted",)]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_client_that_waits_sees_the_end_when_the_agent_is_told_to_stop(
    home: Home, words: tuple[str, ...]
) -> None:
    home.provider({Y: SLOW_ANSWER})
    home.start_daemon()
    follower = home.ctl_begin(
        "start", "--wait", *words, "--candidate-models", Y, "--port", str(home.port)
    )
    poll(lambda: measuring(home))
    assert home.daemon is not None
    home.daemon.terminate()
    out, err = follower.communicate(timeout=30)
    assert follower.returncode == 6, err
    assert not words or json.loads(out)["exit_reason"] == "interrupted"


def test_a_cancel_in_the_climb_keeps_the_best_cell_as_a_partial_recommendation(home: Home) -> None:
    home.provider({Y: {"cells": {"8/1/2000": SLOW_ANSWER}}})
    run_id = home.begin(Y, kv_bits_axis=[None, 8])
    poll(lambda: home.rpc("status")["run"]["progress"]["cell"]["index"] == 2)
    poll(lambda: home.calls("started")[-1]["knobs"] == "8/1/2000")
    done = home.ctl("cancel", run_id)
    assert done.returncode == 0
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "interrupted"
    assert document["recommendation"]["partial"] is True
    assert home.ctl("cancel", run_id).returncode == 0
    assert home.ctl("show", run_id).returncode == 0


def test_a_candidate_that_ignores_sigterm_costs_its_grace_and_leaves_no_helper(home: Home) -> None:
    home.settings("[provider]\nstop_grace_s = 0.3\n")
    home.provider({Y: STUBBORN})
    home.begin(Y)
    poll(lambda: measuring(home))
    home.rpc("cancel")
    assert home.rpc("wait", timeout_s=30)["exit_reason"] == "interrupted"
    assert [p for p in home.processes() if p.pid != home.daemon.pid] == []  # type: ignore[union-attr]


def test_kill_9_of_the_agent_ends_the_candidate_and_the_next_agent_starts_from_nothing(
    home: Home,
) -> None:
    home.provider({Y: STUBBORN})
    run_id = home.begin(Y)
    poll(lambda: measuring(home))
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "candidate, helper and guardian are gone", 10)
    poll(lambda: port_is_free(home.port), "the port is free", 10)
    assert home.sql("SELECT exit_reason, ended_at_utc FROM tune_runs") == [("interrupted", None)]
    home.provider({Y: {}})
    home.start_daemon()
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "interrupted"
    assert home.tune(Y)["exit_reason"] == "ok"


def test_agent_and_guardian_killed_at_once_leave_an_orphan_that_the_next_agent_ends(
    home: Home,
) -> None:
    home.provider({Y: STUBBORN})
    home.begin(Y)
    poll(lambda: measuring(home))
    candidate = candidate_of(home)
    guardian = psutil.Process(candidate.ppid())
    assert home.daemon is not None
    home.daemon.send_signal(signal.SIGSTOP)  # so that it cannot clean up after its guardian
    guardian.kill()
    kill(home.daemon)
    assert candidate.is_running()
    home.start_daemon()
    assert not candidate.is_running()
    poll(lambda: port_is_free(home.port))


def test_a_budget_that_runs_out_before_a_choice_gives_nothing(home: Home) -> None:
    home.provider({Y: SLOW_LOAD})
    began = time.monotonic()
    document = home.tune(Y, max_duration=1)
    assert document["exit_reason"] == "budget_exhausted_no_model_selected"
    assert document["recommendation"] is None
    assert "--max-duration" in document["error"]["message"]
    assert home.sql("SELECT stage, fits, notes FROM tune_trials") == [(1, 0, "budget exhausted")]
    assert time.monotonic() - began < 1 + 30


def test_a_budget_that_runs_out_in_the_climb_gives_the_best_so_far(home: Home) -> None:
    home.provider({Y: {"cells": {"8/1/2000": SLOW_LOAD}}})
    home.start_daemon()
    flags = [
        "--kv-bits-axis",
        "unset,8",
        "--max-batch-axis",
        "1",
        "--max-duration",
        "4",
        "--port",
        str(home.port),
    ]
    done = home.ctl("start", "--wait", "--candidate-models", Y, *flags)
    assert done.returncode == 5
    assert done.stdout.startswith("RECOMMENDATION\n  PARTIAL: ")
    assert "PARTIAL" in done.stdout.splitlines()[1]
    assert home.rpc("result")["recommendation"]["partial"] is True


@pytest.mark.slow
@pytest.mark.parametrize("end", ["budget", "cancel"])
def test_a_cell_that_is_measured_counts_though_the_run_ends_while_its_candidate_stops(
    home: Home, end: str
) -> None:
    home.settings("[provider]\nstop_grace_s = 4\n")
    home.provider({Y: {"cells": {"8/1/2000": {"ignores_sigterm": True}}}})
    fields = {"kv_bits_axis": [8], "max_batch_axis": [1], "max_duration": 3.0}
    run_id = home.begin(Y, **fields | ({} if end == "budget" else {"max_duration": 60.0}))
    samples = "SELECT count(*) FROM events WHERE type = 'replicate'"
    poll(lambda: home.sql(samples) == [(4,)])
    if end == "cancel":
        time.sleep(0.5)
        home.rpc("cancel")
    home.rpc("wait", run_id=run_id, timeout_s=30)
    document = home.rpc("result", run_id=run_id)
    assert document["recommendation"]["partial"] is True
    assert home.sql("SELECT stage, fits, kept, notes FROM tune_trials") == [
        (1, 1, 0, None),
        (2, 1, 1, None),
    ]


@pytest.mark.parametrize("end", ["kill", pytest.param("hang up", marks=pytest.mark.slow)])
def test_a_client_that_dies_changes_nothing_about_the_run(home: Home, end: str) -> None:
    home.provider({X: {"load_s": 0.2, "exit_code": 1}, Y: BRIEF})
    home.start_daemon()
    words = [
        "start",
        "--wait",
        "--candidate-models",
        f"{X},{Y}",
        "--port",
        str(home.port),
        "--max-batch-axis",
        "1",
    ]
    main, second = pty.openpty()
    client = subprocess.Popen(
        [sys.executable, "-m", "autotunectl", *words],
        env={**home.environ, "TERM": "xterm"},
        stdin=second,
        stdout=second,
        stderr=second,
        start_new_session=True,
        cwd="/",
    )
    os.close(second)
    poll(home.starts)
    watcher = home.ctl_begin("watch")
    assert watcher.stderr is not None
    assert watcher.stderr.readline().startswith("run ")
    client.send_signal(signal.SIGKILL if end == "kill" else signal.SIGHUP)
    with suppress(OSError):
        os.close(main)
    client.wait(30)
    out, err = watcher.communicate(timeout=30)
    assert watcher.returncode == 0
    assert out == ""
    assert "finished: ok" in err
    assert home.rpc("wait", timeout_s=30)["exit_reason"] == "ok"


def test_one_agent_a_home_and_the_second_says_who_holds_it(home: Home) -> None:
    first = home.start_daemon()
    second = subprocess.run(
        [sys.executable, "-m", "autotuned"],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert f"pid {first.pid}" in second.stderr
    assert home.rpc("version")["pid"] == first.pid


def test_a_second_run_is_busy_while_one_is_active(home: Home) -> None:
    home.provider({Y: SLOW_LOAD, Z: {}})
    run_id = home.begin(Y)
    with pytest.raises(RpcError) as refused:
        home.begin(Z)
    assert refused.value.code == -32001
    assert refused.value.data["run_id"] == run_id
    done = home.ctl("start", "--candidate-models", Z, "--port", str(home.port))
    assert done.returncode == 10
    assert len(home.sql("SELECT 1 FROM tune_runs")) == 1
