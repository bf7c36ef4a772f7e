"""Launchctl fails or hangs in every documented way; the live provider is back in the end, or it is told loudly."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.home import Home, RpcError, Y, poll
from tests.support.live import FOREVER, LaunchdJob

pytestmark = pytest.mark.slow


def drained(home: Home, **plan: Any) -> LaunchdJob:
    """A home with a live job and one small model."""
    home.provider({Y: {}})
    return LaunchdJob(home, **plan)


def test_a_bootstrap_that_fails_is_tried_again_until_it_runs(home: Home) -> None:
    job = drained(home)
    job.fault("bootstrap", 5, times=2)
    job.fault("bootstrap", 119, times=1)
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    assert job.back()
    assert home.rpc("status")["lease"] is None
    assert len(job.calls("bootstrap")) == 4
    done = home.sql("SELECT fields_json FROM events WHERE type = 'restore.done'")
    assert len(done) == 1
    assert '"restored": true' in done[0][0].replace('":true', '": true')


@pytest.mark.parametrize(
    "outcome", [{"outcome": "not_running"}, {"outcome": "penalty", "for_s": 3}]
)
def test_code_0_is_no_proof_that_it_runs(home: Home, outcome: dict[str, Any]) -> None:
    job = drained(home)
    job.fault("bootstrap", times=1, **outcome)
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    poll(job.serving)
    assert len(job.starts()) == 2


@pytest.mark.parametrize("code", [119])
def test_a_provider_that_cannot_be_brought_back_is_told_loudly_and_no_run_starts(
    home: Home, code: int
) -> None:
    job = drained(home)
    job.fault("bootstrap", code)
    document = home.tune(Y, drain=True, timeout=60)
    assert not job.loaded()
    assert any("NOT RESTORED" in warning for warning in document["warnings"])
    lease = home.rpc("status")["lease"]
    assert lease["outstanding"]
    assert str(code) in lease["reason"]
    told = home.ctl("status")
    assert "NOT" in told.stdout.upper()
    assert job.label in told.stdout + told.stderr
    refused = home.ctl("start", "--wait", "--candidate-models", Y, "--port", str(home.port))
    assert refused.returncode == 13
    assert "provider restore" in refused.stderr
    starts = home.starts()
    job.mend()
    assert home.ctl("provider", "restore").returncode == 0
    poll(job.serving)
    assert home.starts() == [*starts, None]
    assert home.rpc("status")["lease"] is None
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    assert job.back()


def test_what_could_not_be_brought_back_comes_back_by_itself_when_the_fault_goes(
    home: Home,
) -> None:
    job = drained(home)
    job.fault("bootstrap", 5)
    home.tune(Y, drain=True, timeout=60)
    assert home.rpc("status")["lease"]["outstanding"]
    job.mend()
    poll(job.back, "it is tried again in the background")
    poll(lambda: home.rpc("status")["lease"] is None)


@pytest.mark.parametrize("code", [5, 36])
def test_a_boot_out_is_judged_by_what_it_reached(home: Home, code: int) -> None:
    job = drained(home)
    job.fault("bootout", code, act=True, times=1)
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    assert job.back()


@pytest.mark.parametrize("fault", [{"code": 125}, {"outcome": "nothing"}])
def test_a_boot_out_that_does_nothing_ends_the_run_and_leaves_the_provider_running(
    home: Home, fault: dict[str, Any]
) -> None:
    job = drained(home)
    job.fault("bootout", **fault)
    pid = job.pid()
    document = home.tune(Y, drain=True, drain_grace=2.0)
    assert document["exit_reason"] == "provider_conflict"
    assert job.pid() == pid
    assert home.starts() == [None]
    assert home.rpc("status")["lease"] is None


def test_a_launchctl_that_hangs_neither_hangs_the_agent_nor_loses_the_provider(
    home: Home,
) -> None:
    job = drained(home)
    job.fault("bootstrap", hang_s=FOREVER, times=1)
    run_id = home.begin(Y, drain=True)
    poll(lambda: job.calls("bootstrap"), "it is being restored")
    began = time.monotonic()
    assert home.rpc("status", run_id=run_id)["run"]["phase"] == "restoring"
    assert time.monotonic() - began < 5
    home.rpc("wait", run_id=run_id, timeout_s=60)
    assert job.back()
    assert home.rpc("status")["lease"] is None


def test_a_boot_out_that_hangs_costs_its_time_out_and_the_provider_stays(home: Home) -> None:
    job = drained(home)
    job.fault("bootout", hang_s=FOREVER)
    document = home.tune(Y, drain=True, drain_grace=1.0, timeout=60)
    assert document["exit_reason"] == "provider_conflict"
    poll(job.serving)
    assert len(job.starts()) == 1


def test_a_launchctl_that_does_not_answer_is_never_taken_for_nobody_there(home: Home) -> None:
    job = drained(home)
    home.start_daemon()
    job.fault("print", hang_s=FOREVER)
    for drain in (False, True):
        with pytest.raises(RpcError, match="launchctl") as refused:
            home.begin(Y, drain=drain)
        assert refused.value.data["exit_reason"] == "provider_conflict"
    assert job.alive()
    assert job.calls("bootout") == []


@pytest.mark.parametrize("text", ["localised", "garbage"])
def test_codes_are_believed_where_the_text_cannot_be_read(home: Home, text: str) -> None:
    job = drained(home, text=text)
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    poll(job.serving)
    assert len(job.starts()) == 2


def test_a_plist_that_was_replaced_meanwhile_is_loaded_as_it_is_now(home: Home) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 300}]}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, drain=True)
    poll(lambda: job.calls("bootout"))
    job.argv = [*job.argv, "--model", "new"]
    job.write_plist()
    written = job.plist.read_bytes()
    home.rpc("wait", run_id=run_id, timeout_s=30)
    poll(job.serving)
    assert job.starts()[-1]["argv"] == job.argv[1:]
    assert job.plist.read_bytes() == written


def test_after_a_reboot_launchd_has_brought_it_back_and_nobody_starts_a_second(
    home: Home,
) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 300}]}})
    job = LaunchdJob(home)
    home.begin(Y, drain=True, stage2_replicates=500)
    poll(lambda: [e for e in home.calls("request") if e["request"] == "replicate"])
    job.reboot()
    before = job.calls("bootstrap")
    poll(job.serving)
    starts = len(job.starts())
    home.start_daemon()
    assert job.back()
    assert job.calls("bootstrap") == before
    assert len(job.starts()) == starts
    assert home.rpc("status")["lease"] is None
    assert home.sql("SELECT exit_reason, ended_at_utc FROM tune_runs") == [("interrupted", None)]


def test_where_nobody_can_look_it_is_loaded_all_the_same_and_owed_until_it_is_seen(
    home: Home,
) -> None:
    home.provider({Y: {"replicates": [{"total_ms": 300}]}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, drain=True)
    poll(lambda: [e for e in home.calls("request") if e["request"] == "replicate"])
    job.fault("print", 1)
    home.rpc("wait", run_id=run_id, timeout_s=60)
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "ok"
    poll(job.serving)
    assert home.rpc("status")["lease"]["outstanding"]
    job.mend()
    assert home.ctl("provider", "restore").returncode == 0
    assert home.rpc("status")["lease"] is None
    assert len(job.starts()) == 2
