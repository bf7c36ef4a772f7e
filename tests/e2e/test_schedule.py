"""The nightly re-tune of a real agent: set for this minute, it fires, skips, waits, pauses, and says so."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime
from typing import Any

import pytest

from tests.support import tools
from tests.support.home import Home, RpcError, X, Y, far, free_port, kill, poll
from tests.support.live import LaunchdJob

pytestmark = pytest.mark.slow  # each starts an agent of its own


def this_minute() -> str:
    """The local time of day now: what has passed by a moment when it is set still means tonight."""
    return f"{datetime.now().astimezone():%H:%M}"


def latest(home: Home) -> dict[str, Any]:
    """The newest decision; empty while there is none."""
    history = home.rpc("schedule.get")["history"]
    return dict(history[0]) if history else {}


def test_off_by_default_and_set_shown_and_switched_off_by_the_client(home: Home) -> None:
    home.start_daemon()
    shown = json.loads(home.ctl("schedule", "show", "--json").stdout)
    assert (shown["enabled"], shown["next_run_at"], shown["history"]) == (False, None, [])
    assert home.rpc("status")["schedule"]["enabled"] is False
    done = home.ctl(
        *[
            "schedule",
            "set",
            "--at",
            "03:30",
            "--window",
            "90m",
            "--when",
            "always",
            "--first",
            "check",
            "--drain",
            "--only-on-ac",
            "--days",
            "thu,mon",
        ],
        *["--target-context", "4000", "--json"],
    )
    document = json.loads(done.stdout)
    assert document["window_s"] == 5400
    assert document["days"] == ["mon", "thu"]
    assert document["first"] == "check"
    assert document["drain"]
    assert not document["apply"]
    assert document["request"] == {"target_context": 4000}
    coming = datetime.fromisoformat(document["next_run_at"]).astimezone()
    assert f"{coming:%H:%M}" == "03:30"
    assert coming.weekday() in (0, 3)
    assert "checks the recipe after a change" in home.ctl("schedule", "show").stdout
    status = home.ctl("status").stdout
    assert "schedule  nightly at 03:30, next" in status
    assert home.daemon is not None
    kill(home.daemon)
    home.start_daemon()
    assert home.rpc("schedule.get")["next_run_at"] == document["next_run_at"]
    assert "off" in home.ctl("schedule", "off").stdout
    assert home.rpc("schedule.get")["next_run_at"] is None
    assert home.rpc("schedule.get")["days"] == ["mon", "thu"]


def test_a_bad_schedule_is_one_line_with_the_flag_the_value_and_the_rule(home: Home) -> None:
    home.start_daemon()
    done = home.ctl("schedule", "set", "--at", "25:00")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "autotunectl: --at: '25:00' is not a time of day such as 03:30",
        "hint: autotunectl schedule --help",
    ]
    with pytest.raises(RpcError) as refused:
        home.rpc("schedule.set", at=far(), window_s=5)
    assert refused.value.data["field"] == "window_s"
    assert refused.value.code == -32602


def test_it_skips_while_fresh_fires_after_an_update_and_never_twice_a_night(home: Home) -> None:
    tools.mac(home.bin)
    home.provider({X: {}, Y: {}})
    first = home.tune(X)
    home.rpc("schedule.set", at=this_minute())
    poll(lambda: latest(home).get("decision") == "skipped", "the night is decided")
    assert latest(home)["reason"] == f"fresh: nothing has changed since {first['run_id']}"
    tools.mac(home.bin, version="26.4", build="25E5")
    home.rpc("schedule.set", at=this_minute(), when="stale")
    poll(lambda: latest(home).get("outcome"), "the scheduled run has ended")
    assert latest(home)["outcome"] == "ok"
    fired = latest(home)
    assert fired["decision"] == "fired"
    assert fired["reason"] == "stale: macOS 26.3 -> 26.4"
    document = home.rpc("result", run_id=fired["run_id"])
    assert document["trigger"] == "os_update"
    assert document["inputs"]["candidate_models"] == [X]
    assert home.rpc("stale")["stale"] is False
    home.rpc("schedule.set", at=this_minute(), when="always")
    assert home.rpc("schedule.get")["next_run_at"] > fired["at"]
    history = home.ctl("schedule", "show", "--history").stdout
    assert "fired: stale: macOS 26.3 -> 26.4" in history
    assert f"{fired['run_id']} ok" in history
    assert "skipped: fresh" in history
    assert len(home.sql("SELECT run_id FROM tune_runs")) == 2


def test_a_live_provider_without_drain_is_a_conflict_and_three_of_them_pause_it(home: Home) -> None:
    home.settings(home.private_program())
    home.provider({Y: {}})
    home.start_daemon()
    home.rpc("schedule.set", at=far(), request={"candidate_models": [Y], "port": home.port})
    live = subprocess.Popen(
        [str(home.bin / home.program), "serve", "--port", str(free_port())], env=home.environ
    )
    try:
        poll(lambda: home.starts() == [None])
        for _ in range(3):
            done = home.ctl("schedule", "run-now")
            assert done.returncode == 7
            assert f"foreground-PID-{live.pid}" in done.stderr
        assert live.poll() is None
        rows = home.sql("SELECT exit_reason FROM tune_runs")
        assert rows == [("provider_conflict",)] * 3
        document = home.rpc("result", run_id=latest(home)["run_id"])
        assert document["trigger"] == "schedule"
        paused = home.rpc("status")["schedule"]
        assert paused["next_run_at"] is None
        assert "paused after 3 failures in a row" in home.ctl("status").stdout
    finally:
        live.kill()
        live.wait()
    # By hand it still begins, and a good run ends the pause.
    begun = json.loads(home.ctl("schedule", "run-now", "--json").stdout)
    home.rpc("wait", run_id=begun["run_id"])
    status = home.rpc("status")["schedule"]
    assert status["paused"] is None
    assert status["next_run_at"] is not None


def test_on_battery_it_waits_and_says_for_what(home: Home) -> None:
    tools.install(home.bin, "pmset", {"-g batt": "Now drawing from 'Battery Power'"})
    home.provider({X: {}})
    home.start_daemon()
    home.rpc("schedule.set", at=this_minute(), only_on_ac=True)
    poll(lambda: latest(home).get("decision") == "waiting", "it waits")
    assert latest(home)["reason"] == "on battery"
    assert home.sql("SELECT count(*) FROM tune_runs") == [(0,)]
    tools.install(home.bin, "pmset", {"-g batt": "Now drawing from 'AC Power'"})
    request = {"candidate_models": [X], "port": home.port, "kv_bits_axis": [4]}
    home.rpc("schedule.set", at=this_minute(), only_on_ac=True, request=request)
    poll(lambda: latest(home).get("outcome"), "on mains power it fires")
    assert latest(home)["outcome"] == "ok"


def test_a_run_by_hand_waits_for_nobody(home: Home) -> None:
    home.provider({X: {"load_s": 60}})
    active = home.begin(X)
    with pytest.raises(RpcError) as busy:
        home.rpc("schedule.run_now")
    assert busy.value.code == -32001
    assert busy.value.data["run_id"] == active
    assert latest(home)["decision"] == "skipped"
    home.rpc("cancel")
    home.rpc("wait")


def test_killed_in_the_middle_the_night_is_not_begun_again(home: Home) -> None:
    home.provider({X: {"load_s": 60}})
    home.start_daemon()
    request = {"candidate_models": [X], "port": home.port}
    home.rpc("schedule.set", at=this_minute(), when="always", request=request)
    poll(home.starts, "a candidate loads")
    assert home.daemon is not None
    kill(home.daemon)
    home.start_daemon()
    assert latest(home)["outcome"] == "crashed"
    assert home.rpc("status")["run"]["state"] == "finished"
    assert len(home.sql("SELECT run_id FROM tune_runs")) == 1


def test_with_its_consents_a_scheduled_run_drains_applies_and_restores(home: Home) -> None:
    home.provider({X: {}})
    job = LaunchdJob(home)
    home.start_daemon()
    request = {
        "candidate_models": [X],
        "port": home.port,
        "kv_bits_axis": [4],
        "max_batch_axis": [1],
    }
    home.rpc("schedule.set", at=this_minute(), drain=True, apply=True, request=request)
    poll(lambda: latest(home).get("outcome"), "the scheduled run has ended")
    assert latest(home)["outcome"] == "ok"
    poll(job.serving, "the live provider serves again")
    assert f"model: {X}" in job.config.read_text(encoding="utf-8")
    document = home.rpc("result", run_id=latest(home)["run_id"])
    assert document["applied"] is not None
    # The next one is asked for without: what the last good run was allowed is not repeated.
    home.rpc("schedule.set", at=far(), request=request)
    with pytest.raises(RpcError) as refused:
        home.rpc("schedule.run_now")
    assert refused.value.data["exit_reason"] == "provider_conflict"
    assert job.serving()


@pytest.mark.parametrize(("told", "confirms"), [({}, True), ({"confirm": False}, False)])
def test_a_schedule_that_applies_confirms_unless_it_is_told_not_to(
    told: dict[str, bool], confirms: bool, home: Home
) -> None:
    home.provider({Y: {}})
    home.tune(Y, kv_bits_axis=[8], stage2_replicates=1)
    home.rpc("schedule.set", at=far(), apply=True, request=told)
    run_id = home.rpc("schedule.run_now")["run_id"]
    assert not home.rpc("wait", run_id=run_id, timeout_s=30).get("timed_out")
    assert ("confirmation" in home.rpc("result", run_id=run_id)) == confirms
