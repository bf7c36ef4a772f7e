"""An agent that dies under its clients, and one that is to be stopped: no run ends, and no agent goes, by surprise."""

from __future__ import annotations

import contextlib
import subprocess

import psutil
import pytest

from tests.support.home import Home, Y, kill, poll

pytestmark = pytest.mark.slow  # agents are killed, stopped and started again
SLOW = {"load_s": 60}


def end(home: Home) -> None:
    """Stop the agent that a client has started."""
    pid = home.rpc("version")["pid"]
    home.rpc("shutdown")
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)


def begun(home: Home, *words: str) -> subprocess.Popen[str]:
    home.provider({Y: SLOW})
    home.start_daemon()
    follower = home.ctl_begin(
        *words, "start", "--candidate-models", Y, "--port", str(home.port), "--wait"
    )
    poll(home.starts)
    return follower


def test_a_client_that_waits_starts_a_dead_agent_again_and_says_how_to_resume(home: Home) -> None:
    follower = begun(home)
    watcher = home.ctl_begin("watch")
    assert watcher.stderr is not None
    watcher.stderr.readline()
    run_id = home.rpc("status")["run"]["run_id"]
    assert home.daemon is not None
    kill(home.daemon)
    _, err = follower.communicate(timeout=60)
    assert follower.returncode == 6
    assert "starting it again" in err
    assert f"autotunectl start --resume {run_id} --wait" in err
    _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert f"autotunectl start --resume {run_id} --wait" in err
    end(home)


def test_a_client_that_may_start_no_agent_ends_where_none_comes_back(home: Home) -> None:
    follower = begun(home, "--no-autostart")
    assert home.daemon is not None
    kill(home.daemon)
    _, err = follower.communicate(timeout=90)
    assert follower.returncode == 9
    assert "autotunectl daemon start" in err


def test_stop_and_restart_end_no_run_unless_they_may(home: Home) -> None:
    follower = begun(home)
    run_id = home.rpc("status")["run"]["run_id"]
    for verb in ("stop", "restart"):
        refused = home.ctl("daemon", verb)
        assert refused.returncode == 10, refused.stderr
        assert f"run {run_id} is active" in refused.stderr
        assert "--cancel" in refused.stderr
    assert home.rpc("status")["run"]["state"] == "running"
    before = home.rpc("version")["pid"]
    assert home.ctl("daemon", "restart", "--cancel", timeout=60).returncode == 0
    assert home.rpc("version")["pid"] != before
    follower.communicate(timeout=60)
    assert follower.returncode == 6
    assert home.ctl("daemon", "stop").stdout == "stopped\n"
    assert home.ctl("daemon", "stop").stdout == "no agent was running\n"


def test_settings_that_cannot_be_used_are_found_before_the_agent_that_runs_is_stopped(
    home: Home,
) -> None:
    agent = home.start_daemon()
    home.settings("[log]\nlevel = 7\n")
    refused = home.ctl("daemon", "restart")
    assert refused.returncode == 2
    assert "log.level" in refused.stderr
    assert home.rpc("version")["pid"] == agent.pid
