"""Somebody else brings the live provider back in the middle of a run: its watchdog, its updater, or a person."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.home import Home, Y, free_port, poll
from tests.support.live import Foreground, LaunchdJob

pytestmark = pytest.mark.slow
RUN: dict[str, Any] = {"stage2_replicates": 4, "drain": True}


def measured(home: Home) -> int:
    """How many replicates were asked for so far."""
    return len([entry for entry in home.calls("request") if entry["request"] == "replicate"])


def test_a_trial_with_the_live_provider_back_is_void_and_repeated_without_it(home: Home) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 200}]}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, **RUN)
    poll(lambda: measured(home) >= 2)
    job.revive()
    poll(job.back)
    home.rpc("wait", run_id=run_id, timeout_s=30)
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "ok"
    assert job.back()
    assert len(job.calls("bootout")) == 2
    (warning,) = [text for text in document["warnings"] if "was brought back" in text]
    assert job.target in warning
    assert home.sql("SELECT stage, replicates_n, n_err FROM tune_trials ORDER BY id") == [
        (1, 1, 0),
        (2, 4, 0),
    ]
    assert (
        len(home.calls("started")) == 3 + 3
    )  # live: first, revived, restored; probe, void cell, cell


def test_the_third_time_the_run_ends_and_says_so(home: Home) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 200}]}})
    job = LaunchdJob(home, revive_after_s=1.0)
    document = home.tune(Y, timeout=60, **{**RUN, "stage2_replicates": 500})
    assert document["exit_reason"] == "provider_conflict"
    assert document["recommendation"] is None
    assert "brought back" in document["error"]["message"]
    assert job.target in document["error"]["message"]
    assert len(job.calls("bootout")) == 3
    assert job.back()
    assert home.rpc("status")["lease"] is None
    told = home.sql("SELECT fields_json FROM events WHERE type = 'log'")
    assert [json.loads(row[0])["level"] for row in told] == ["warning"] * 3


def test_another_live_provider_than_the_drained_one_is_never_stopped(home: Home) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 200}]}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, **{**RUN, "stage2_replicates": 500})
    poll(lambda: measured(home) >= 2)
    other = subprocess.Popen(
        [job.argv[0], "serve", "--port", str(free_port())], env=home.environ, start_new_session=True
    )
    try:
        home.rpc("wait", run_id=run_id, timeout_s=30)
        document = home.rpc("result", run_id=run_id)
        assert document["exit_reason"] == "provider_conflict"
        assert f"foreground-PID-{other.pid}" in document["error"]["message"]
        assert other.poll() is None
        assert job.back()
    finally:
        other.kill()
        other.wait()


def test_a_foreground_provider_that_its_supervisor_restarts_is_drained_again(home: Home) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 200}]}})
    live = Foreground(home)
    run_id = home.begin(Y, restart_foreground=True, **RUN)
    poll(lambda: measured(home) >= 2)
    again = subprocess.Popen(live.argv, env=home.environ, cwd=live.cwd, start_new_session=True)
    home.rpc("wait", run_id=run_id, timeout_s=30)
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "ok"
    assert any(f"foreground-PID-{again.pid}" in warning for warning in document["warnings"])
    assert again.wait(10) == 0
    (restarted,) = poll(live.running)
    assert restarted.pid not in (again.pid, live.process.pid)


@pytest.mark.parametrize("call", [1, 3, 9])
def test_a_watchdog_that_acts_at_any_moment_leaves_one_provider_and_no_candidate_beside_it(
    home: Home, call: int
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, revive_at_call=call, revivals=1)
    assert home.tune(Y, timeout=60, **RUN)["exit_reason"] == "ok"
    assert job.back()
    assert home.rpc("status")["lease"] is None
    rows = home.sql("SELECT stage, replicates_n, n_err FROM tune_trials ORDER BY id")
    assert rows == [(1, 1, 0), (2, 4, 0)]
