"""A live provider that launchd manages: refused unasked, drained when asked, always back."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.support.home import DEADLINE_S, Home, RpcError, Y, poll, port_is_free
from tests.support.live import LABEL, OLD_LABEL, LaunchdJob

SLOW_RUN: dict[str, Any] = {"replicates": [{"total_ms": 400}]}


def test_a_job_is_refused_unasked_and_with_drain_booted_out_tuned_and_restored(
    home: Home,
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    home.start_daemon()
    words: tuple[str, ...] = (
        "start",
        "--wait",
        "--json",
        "--candidate-models",
        Y,
        "--port",
        str(home.port),
    )
    words += ("--kv-bits-axis", "unset", "--max-batch-axis", "1")
    pid = job.pid()
    refused = home.ctl(*words)
    assert refused.returncode == 7
    assert f"launchd-managed ({job.target})" in refused.stderr
    assert "foreground" not in refused.stderr
    assert "--drain" in refused.stderr
    assert json.loads(refused.stdout)["exit_reason"] == "provider_conflict"
    assert job.pid() == pid
    assert job.calls("bootout") == []

    done = home.ctl(*words, "--drain")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recommendation"]["model"] == Y
    poll(job.serving)
    assert job.pid() != pid
    assert job.calls("bootout") == [["bootout", job.target]]
    assert job.calls("bootstrap") == [["bootstrap", job.domain, str(job.plist)]]
    assert job.calls("disable") == job.calls("kill") == job.calls("load") == []
    _alone_during_the_run(home, job)


def _alone_during_the_run(home: Home, job: LaunchdJob) -> None:
    """No candidate was started while the live provider ran."""
    order = ["live" if "--no-join" not in e["argv"] else "candidate" for e in home.calls("started")]
    assert order == ["live", "candidate", "candidate", "live"]
    again = job.starts()[-1]
    assert again["argv"] == job.argv[1:]
    assert again["environment"]["LIVE"] == "yes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "domain"), [(LABEL, "user"), (OLD_LABEL, "gui"), (OLD_LABEL, "user")]
)
def test_a_job_goes_back_into_the_domain_where_it_was_found(
    home: Home, label: str, domain: str
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, label=label, domain=domain)
    if domain == "user":
        job.plan(domains=["user"])  # ssh: nobody is logged in on the screen
    assert home.tune(Y, drain=True)["exit_reason"] == "ok"
    assert job.back()
    assert {words[1] for words in job.calls("bootstrap")} == {job.domain}


@pytest.mark.slow
def test_a_job_of_the_system_is_reported_and_refused_even_with_drain(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, domain="system")
    with pytest.raises(RpcError, match=f"system/{job.label}.*sudo") as refused:
        home.begin(Y, drain=True)
    assert refused.value.data["exit_reason"] == "provider_conflict"
    assert refused.value.data["reason"] == "undrainable", "a drain alone is no remedy"
    assert job.alive()
    assert job.calls("bootout") == []


@pytest.mark.slow
def test_the_commands_that_an_apply_prints_work_pasted_together_on_a_job_that_ends_slowly(
    home: Home,
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, dying_s=1.0)
    home.tune(Y, drain=True)
    before = job.pid()
    _, _, pasted = home.ctl("apply").stderr.partition("to make it live:\n")
    done = subprocess.run(["sh", "-ec", pasted], env=home.environ, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, pasted
    assert job.back()
    assert job.pid() != before


@pytest.mark.slow
def test_a_job_that_does_not_end_within_the_grace_is_not_killed_and_comes_back(
    home: Home,
) -> None:
    home.provider({Y: {}}, live={"ignores_sigterm": True})
    job = LaunchdJob(home, exit_timeout_s=3.0)  # then launchd, not we, kills it
    document = home.tune(Y, drain=True, drain_grace=1.0)
    assert document["exit_reason"] == "provider_conflict"
    assert job.target in document["error"]["message"]
    assert "grace" in document["error"]["message"]
    assert set(home.starts()) == {None}
    assert home.sql("SELECT COUNT(*) FROM tune_trials") == [(0,)]
    poll(job.back, "the live provider is back")
    assert job.calls("kill") == []


@pytest.mark.slow
def test_a_dry_run_names_the_job_and_leaves_it_alone(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    home.start_daemon()
    asked = {"candidate_models": [Y], "port": home.port, "drain": True, "dry_run": True}
    assert home.rpc("start", **asked)["plan"]["conflicts"] == [f"launchd-managed ({job.target})"]
    assert job.calls("bootout") == []
    assert job.alive()


@pytest.mark.slow
def test_a_job_that_is_not_the_provider_is_never_drained(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, start=False)
    ours, job.argv = job.argv, ["/bin/sleep", "600"]
    job.write_plist()
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 0
    job.argv = ours  # what would be loaded next; what runs is something else
    job.write_plist()
    with pytest.raises(RpcError, match="not the provider") as refused:
        home.begin(Y, drain=True)
    assert refused.value.data["exit_reason"] == "provider_conflict"
    assert job.alive()
    assert job.calls("bootout") == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "SIGTERM", "budget"])
def test_a_drained_run_that_is_cut_short_brings_the_job_back(home: Home, how: str) -> None:
    home.provider({Y: SLOW_RUN})
    job = LaunchdJob(home)
    fields: dict[str, Any] = {"stage2_replicates": 500, "drain": True}
    if how == "budget":
        fields["max_duration"] = 5.0
    run_id = home.begin(Y, **fields)
    poll(lambda: [e for e in home.calls("request") if e["request"] == "replicate"])
    assert not job.loaded()
    assert port_is_free(job.port)
    if how == "cancel":
        assert home.ctl("cancel").returncode in (0, 6)
    elif how == "SIGTERM":
        assert home.daemon is not None
        home.daemon.terminate()
        assert home.daemon.wait(30) == 0
    else:
        home.rpc("wait", run_id=run_id, timeout_s=30)
    assert job.back()
    expected = "budget_exhausted_no_model_selected" if how == "budget" else "interrupted"
    assert home.sql("SELECT exit_reason, ended_at_utc IS NOT NULL FROM tune_runs") == [
        (expected, 1)
    ]


@pytest.mark.slow
def test_a_cancel_while_the_job_is_ending_brings_it_back(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home, dying_s=3.0)
    run_id = home.begin(Y, drain=True)
    poll(lambda: job.calls("bootout"))
    home.rpc("cancel", run_id=run_id)
    home.rpc("wait", run_id=run_id, timeout_s=30)
    poll(job.back, "the live provider is back")
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "interrupted"
    assert home.starts() == [None, None]


def test_a_second_job_of_the_provider_is_named_by_its_job_and_no_drain_is_offered(
    home: Home,
) -> None:
    home.provider({Y: {}})
    old = LaunchdJob(home, label="live.streamvc.macprovider")
    new = LaunchdJob(home, label="live.malibu.provider")
    home.start_daemon()
    refused = home.ctl("start", "--candidate-models", Y, "--port", str(home.port))
    assert refused.returncode == 7
    assert f"launchd-managed ({old.target}), launchd-managed ({new.target})" in refused.stderr
    assert "foreground" not in refused.stderr
    assert "hint: stop all but one of them" in refused.stderr
