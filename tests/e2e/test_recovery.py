"""The live provider comes back though settings, database or journal are broken; and one owner of its lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from tests.e2e.test_kills import LASTING, candidates, drained_and_dead, journal, run_folder
from tests.support.home import DEADLINE_S, Home, RpcError, Y, kill, poll
from tests.support.live import Foreground, LaunchdJob

pytestmark = pytest.mark.slow  # each starts an agent of its own


def begin_and_end(home: Home) -> subprocess.CompletedProcess[str]:
    """Start an agent that cannot stay."""
    return subprocess.run(
        [sys.executable, "-m", "autotuned"],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_broken_settings_do_not_keep_the_live_provider_away(home: Home) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    home.settings("[provider\n")
    done = begin_and_end(home)
    assert done.returncode == 2
    assert "autotuned.toml" in done.stderr
    assert job.back()
    assert not candidates(home)
    assert journal(home)["state"] == "released"


@pytest.mark.parametrize("damage", ["corrupt", "newer"])
def test_a_database_that_cannot_be_used_does_not_keep_the_live_provider_away(
    home: Home, damage: str
) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    if damage == "corrupt":
        home.database.write_bytes(b"no database at all" * 1000)
        home.start_daemon()
        assert job.back()
        assert home.rpc("status")["lease"] is None
        return
    import sqlite3

    with sqlite3.connect(home.database) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()
    assert begin_and_end(home).returncode != 0
    assert job.back()


def test_a_damaged_journal_is_replaced_by_its_copy_in_the_store(home: Home) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    (run_folder(home) / "lease.json").write_text("{", encoding="utf-8")
    home.start_daemon()
    poll(job.back, "the live provider is back")
    poll(lambda: home.rpc("status")["lease"] is None)


def test_break_glass_works_with_a_dead_agent_and_a_database_of_garbage(home: Home) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    for process in candidates(home):
        process.kill()
    home.database.write_bytes(b"no database at all" * 1000)
    told = home.ctl("provider", "status")
    assert told.returncode == 13
    assert told.stdout.startswith("OWED: ")
    assert f"{job.domain}/{job.label}" in told.stdout
    restored = home.ctl("provider", "restore", "--json")
    assert restored.returncode == 0
    assert json.loads(restored.stdout)["outstanding"] is False
    assert job.back()
    assert home.ctl("provider", "status").returncode == 0


def test_a_restore_that_fails_is_told_loudly_and_no_run_starts_until_it_is_back(
    home: Home,
) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    job.fault("bootstrap", 5)
    run_id = home.begin(Y, drain=True, stage2_replicates=1)
    assert home.rpc("wait", run_id=run_id, timeout_s=60)["exit_reason"] == "ok"
    status = home.ctl("status")
    assert status.stdout.startswith("NOT RESTORED: ")
    assert "code 5" in status.stdout
    refused = home.ctl("start", "--candidate-models", Y, "--port", str(home.port))
    assert refused.returncode == 13
    assert "hint: autotunectl provider restore" in refused.stderr
    with pytest.raises(RpcError) as told:
        home.begin(Y)
    assert told.value.code == -32005
    assert told.value.data["lease"]["run_id"] == run_id
    assert home.ctl("provider", "status").returncode == 13
    job.mend()
    assert home.ctl("provider", "restore", timeout=60).returncode == 0
    assert job.back()
    assert home.tune(Y, drain=True, stage2_replicates=1)["exit_reason"] == "ok"


def test_an_agent_that_dies_while_a_restore_is_owed_leaves_it_to_its_guardian(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    job.fault("bootstrap", 5)
    run_id = home.begin(Y, drain=True, stage2_replicates=1)
    home.rpc("wait", run_id=run_id, timeout_s=60)
    assert home.daemon is not None
    kill(home.daemon)
    job.mend()
    poll(job.back, "the guardian brings it back", 60)
    poll(lambda: journal(home)["state"] == "released")
    assert journal(home)["by"] == "guardian"


def test_another_tool_that_holds_the_lock_is_named_and_nothing_is_stopped(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    home.start_daemon()
    with (run_folder(home) / "drain.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write("pid 4242 since 2026-01-31T12:00:00Z\n")
        other.flush()
        with pytest.raises(RpcError, match="held by pid 4242 since 2026-01-31") as refused:
            home.begin(Y, drain=True)
        assert refused.value.data["exit_reason"] == "provider_conflict"
        assert job.calls("bootout") == []
        assert job.back()
    assert home.tune(Y, drain=True, stage2_replicates=1)["exit_reason"] == "ok"
    assert job.back()


def test_an_agent_that_is_asked_to_stop_restores_first(home: Home) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    home.begin(Y, drain=True)
    poll(lambda: candidates(home))
    assert home.daemon is not None
    home.daemon.terminate()
    assert home.daemon.wait(DEADLINE_S) == 0
    assert job.back()
    assert home.sql("SELECT exit_reason, ended_at_utc IS NOT NULL FROM tune_runs") == [
        ("interrupted", 1)
    ]
    assert home.sql("SELECT state FROM leases") == [("released",)]


def test_the_environment_of_a_foreground_process_stays_in_its_journal_and_leaves_it_at_the_end(
    home: Home,
) -> None:
    secret = "hf_" + "nobody-may-see-this"
    home.provider({Y: LASTING})
    live = Foreground(home, HF_TOKEN=secret)
    home.begin(Y, drain=True, restart_foreground=True)
    poll(lambda: candidates(home))
    path = run_folder(home) / "lease.json"
    assert secret in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in json.dumps(home.rpc("status"))
    home.rpc("cancel")
    home.rpc("wait", timeout_s=DEADLINE_S)
    poll(lambda: len(live.running()) == 1, "it runs again, once")
    told = [json.loads(row[0]) for row in home.sql("SELECT fields_json FROM events")]
    logs = [entry["log"] for entry in told if "live-provider" in str(entry.get("log"))]
    assert logs
    assert os.path.exists(logs[0])  # noqa: PTH110
    holding = [
        file
        for file in home.path.rglob("*")
        if file.is_file()
        and file != home.bin / "calls.jsonl"
        and secret.encode() in file.read_bytes()
    ]
    assert holding == []
    assert os.getsid(live.running()[0].pid) == live.running()[0].pid


def test_a_foreground_process_that_does_not_end_is_not_killed_and_the_run_is_aborted(
    home: Home,
) -> None:
    home.provider({Y: {}}, live={"ignores_sigterm": True})
    live = Foreground(home)
    began = time.monotonic()
    document = home.tune(Y, drain=True, drain_grace=1.0, restart_foreground=True)
    assert document["exit_reason"] == "provider_conflict"
    assert "after the drain grace" in document["error"]["message"]
    assert live.alive()
    assert [process.pid for process in live.running()] == [live.process.pid]
    assert home.rpc("status")["lease"] is None
    assert time.monotonic() - began < DEADLINE_S
    assert psutil.pid_exists(live.process.pid)
