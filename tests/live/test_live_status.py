"""What `status`, `doctor` and `provider status` say of the live provider, and that none says that all is well."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from autotuned.shared import wire
from tests.support.home import Home, RpcError, Y, poll, port_is_free
from tests.support.live import LaunchdJob

RETRY_S = 60.0


def finding(home: Home, name: str) -> dict[str, Any]:
    """One check of `doctor`."""
    return next(check for check in home.rpc("doctor")["checks"] if check["name"] == name)


def live(home: Home) -> dict[str, Any]:
    """The live provider as `status` has it."""
    return dict(home.rpc("status")["live_provider"] or {})


@pytest.mark.slow
def test_a_job_is_told_with_its_start_its_starts_and_whether_it_answers(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    home.start_daemon()
    seen = poll(lambda: live(home))
    assert (seen["loaded"], seen["running"], seen["healthy"]) == (True, True, True)
    assert (seen["runs"], seen["pid"]) == (1, job.pid())
    age = datetime.now(UTC) - datetime.fromisoformat(seen["since"])
    assert 0 <= age.total_seconds() < 600
    for words in (("status",), ("provider", "status")):
        line = next(x for x in home.ctl(*words).stdout.splitlines() if x.startswith("live "))
        assert f"{job.target}, pid {job.pid()}: running since" in line
        assert "started once, answers" in line
    assert finding(home, "live-provider")["ok"]


@pytest.mark.slow
def test_a_job_that_is_loaded_and_does_not_run_fails_doctor(home: Home) -> None:
    home.provider({Y: {}}, live={"exit_code": 0})
    job = LaunchdJob(home, start=False)
    home.start_daemon()
    seen = poll(lambda: live(home))
    assert (seen["loaded"], seen["running"], seen["state"]) == (False, False, "not loaded")
    check = finding(home, "live-provider")
    assert check["ok"], "nobody has asked for it to be loaded"
    assert check["remedy"] == f"launchctl bootstrap {job.domain} {job.plist}"
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 0
    poll(lambda: live(home)["loaded"] and not job.alive())
    seen = live(home)
    assert (seen["running"], seen["healthy"], seen["since"]) == (False, False, None)
    poll(lambda: not finding(home, "live-provider")["ok"])
    check = finding(home, "live-provider")
    assert f"{job.target} is loaded and does not run" in check["detail"]
    assert f"launchctl kickstart {job.target}" in check["remedy"]
    for words in (("status",), ("provider", "status")):
        assert "loaded, not running" in home.ctl(*words).stdout


@pytest.mark.slow
def test_while_a_run_still_retries_its_restore_nobody_says_that_all_is_well(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, drain=True)
    job.fault("bootstrap", 161)

    def retried() -> bool:
        lease = home.rpc("status")["lease"]
        return bool(lease and lease["reason"] and "161" in lease["reason"])

    poll(retried, "the first failure is told", RETRY_S)
    if home.rpc("status")["run"]["state"] == "running":
        assert home.rpc("status")["run"]["run_id"] == run_id
    check = finding(home, "lease")
    assert not check["ok"]
    assert "161" in check["detail"]
    for words in (("status",), ("provider", "status")):
        told = home.ctl(*words)
        assert f"NOT RESTORED: {job.target}" in told.stdout
        assert "161" in told.stdout
    assert home.ctl("provider", "status").returncode == 13
    job.mend()
    home.ctl("provider", "restore")
    poll(lambda: home.rpc("status")["lease"] is None, "it is restored", RETRY_S)
    assert job.back()


@pytest.mark.slow
def test_a_server_that_somebody_else_has_started_again_is_owed_to_nobody_at_the_next_start(
    home: Home,
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    run_id = home.begin(Y, drain=True)
    job.fault("bootstrap", 161)
    poll(lambda: home.rpc("status")["run"]["state"] == "finished", "it has been given up", RETRY_S)
    with pytest.raises(RpcError) as owed:
        home.begin(Y)
    assert (owed.value.code, owed.value.data["lease"]["run_id"]) == (
        wire.RESTORE_OUTSTANDING,
        run_id,
    )
    other = subprocess.Popen(job.argv, env=home.environ, start_new_session=True)
    try:
        poll(lambda: not port_is_free(job.port), "somebody else serves")
        with pytest.raises(RpcError, match="foreground-PID") as conflict:
            home.begin(Y)
        assert conflict.value.code == wire.PROVIDER_CONFLICT
        assert home.rpc("status")["lease"] is None
    finally:
        other.kill()
        other.wait()
