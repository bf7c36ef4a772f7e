"""A restore is done when the live provider holds: against today's binary, under a launchd that starts it again and again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autotuned.core.lease import Lines, Rollback
from autotuned.errors import ApplyRefused
from autotuned.host import operators_file
from autotuned.host.operators_file import roll_back
from tests.e2e.test_kills import LASTING, candidates, drained_and_dead, journal, run_folder
from tests.support.home import DEADLINE_S, Home, Y, free_port, poll, port_is_free
from tests.support.live import LaunchdJob

SMALL: dict[str, Any] = {"stage2_replicates": 1}
NEW, OLD = "model: new\n", "model: old  # mine\n"


def today(home: Home, models: dict[str, Any], **rules: Any) -> None:
    """The scripted provider, by the rules of today's binary."""
    home.provider(models, today=rules)


def start(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """A small run through the client, with its end."""
    flags = ("--port", str(home.port), "--max-batch-axis", "1", "--kv-bits-axis", "unset")
    model = ("--candidate-models", Y, "--stage2-replicates", "1")
    return home.ctl("start", "--wait", "--json", *model, *flags, *words, timeout=110)


@pytest.mark.slow
@pytest.mark.parametrize("lag_s", [0, 3, 12])
def test_an_apply_with_which_the_provider_does_not_start_is_taken_back(
    home: Home, lag_s: float
) -> None:
    today(home, {Y: {}}, never_starts=[Y], refuses_after_s=lag_s)
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    before = job.config.read_bytes()
    home.start_daemon()
    done = start(home, "--drain", "--apply")
    document = json.loads(done.stdout)
    assert done.returncode == 12, done.stderr
    assert document["exit_reason"] == "ok"
    assert document["applied"] is None
    (words,) = [said for said in document["warnings"] if said.startswith("rolled back: ")]
    assert words.startswith(
        f"rolled back: the live provider did not start with the new recipe: error: {Y}: out of memory"
    )
    assert str(job.log) in words
    assert job.config.read_bytes() == before
    assert job.serving()
    assert home.rpc("status")["lease"] is None
    assert home.sql("SELECT applied FROM tune_runs") == [(0,)]


@pytest.mark.slow
def test_apply_with_a_restart_has_the_same_end(home: Home) -> None:
    today(home, {Y: {}}, never_starts=[Y], refuses_after_s=0.5)
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    before = job.config.read_bytes()
    home.tune(Y, drain=True, **SMALL)
    done = home.ctl("apply", "--restart", timeout=100)
    assert done.returncode == 12
    assert "rolled back: the live provider did not start with the new recipe" in done.stderr
    assert job.config.read_bytes() == before
    poll(job.serving)
    assert home.rpc("result")["applied"] is None


@pytest.mark.slow
def test_revert_with_a_restart_has_the_same_end(home: Home) -> None:
    today(home, {Y: {}})
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    home.tune(Y, drain=True, **SMALL)
    backup = Path(home.rpc("apply")["backup_path"]).name
    applied = job.config.read_bytes()
    today(home, {Y: {}}, never_starts=["mine"], refuses_after_s=0.3)
    done = home.ctl("revert", backup, "--restart", timeout=100)
    assert done.returncode == 12, done.stdout
    assert "rolled back: the live provider did not start" in done.stderr
    assert job.config.read_bytes() == applied
    poll(job.serving)
    today(home, {Y: {}})
    assert home.ctl("revert", backup, "--restart", timeout=100).returncode == 0
    assert job.config.read_text(encoding="utf-8").startswith("model: mine\n")
    assert job.serving()


@pytest.mark.slow
def test_one_that_dies_twice_without_an_apply_is_not_restored_and_says_why(home: Home) -> None:
    today(home, {Y: {}}, refuses_after_s=0.5)
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    home.start_daemon()
    today(home, {Y: {}}, never_starts=["mine"], refuses_after_s=0.5)
    document = home.tune(Y, drain=True, timeout=100, **SMALL)
    assert any("NOT RESTORED" in said for said in document["warnings"])
    status = home.ctl("provider", "status")
    assert status.returncode == 13
    assert "started 2 times and ended each time: error: mine: out of memory" in status.stdout
    assert str(job.log) in status.stdout
    today(home, {Y: {}})
    assert home.ctl("provider", "restore", timeout=100).returncode == 0
    assert job.serving()


@pytest.mark.slow
def test_what_a_guardian_took_back_is_told_by_the_next_agent(home: Home) -> None:
    today(home, {Y: {}}, never_starts=[Y], refuses_after_s=0.3)
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    home.environ["AUTOTUNED_FAILPOINT"] = "apply.replaced:kill"
    home.start_daemon()
    home.begin(Y, drain=True, apply=True, **SMALL)
    assert home.daemon is not None
    home.daemon.wait(60)
    del home.environ["AUTOTUNED_FAILPOINT"]
    poll(job.serving, "the guardian has brought it back")
    poll(lambda: journal(home)["state"] == "released")
    home.start_daemon()
    assert any("rolled back: " in said for said in home.rpc("result")["warnings"])


@pytest.mark.slow
def test_break_glass_ends_an_orphan_that_ignores_sigterm_and_holds_the_port_first(
    home: Home,
) -> None:
    home.provider({Y: {**LASTING, "ignores_sigterm": True}})
    job = LaunchdJob(home, keep_alive=True, throttle_s=1.0)
    home.port = job.port  # the candidates' port is the live provider's
    drained_and_dead(home)
    done = home.ctl("provider", "restore", timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("restored: ")
    assert not candidates(home)
    assert job.serving()
    assert journal(home)["state"] == "released"
    home.port = free_port()


@pytest.mark.slow
def test_an_orphan_is_known_by_its_record_where_no_environment_is_shown(home: Home) -> None:
    home.provider({Y: LASTING})
    LaunchdJob(home)
    drained_and_dead(home)
    (orphan,) = candidates(home)
    record = json.loads((run_folder(home) / "candidate.json").read_text(encoding="utf-8"))
    assert record["pid"] == orphan.pid
    assert home.ctl("provider", "restore", timeout=60).returncode == 0


@pytest.mark.slow
def test_a_server_that_somebody_else_has_started_already_pays_the_debt(home: Home) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    for process in candidates(home):
        process.kill()
    with subprocess.Popen(job.argv, env=home.environ, start_new_session=True) as theirs:
        try:
            poll(lambda: not port_is_free(job.port), "theirs serves")
            done = home.ctl("provider", "restore", timeout=60)
            assert done.returncode == 0, done.stdout
            assert f"pid {theirs.pid} serves on port {job.port}" in done.stdout
            assert job.calls("bootstrap") == []
        finally:
            theirs.kill()


@pytest.mark.slow
@pytest.mark.parametrize("agent", [True, False], ids=["asked of the agent", "without an agent"])
def test_a_debt_that_cannot_be_paid_is_forgotten_once_that_is_confirmed(
    home: Home, agent: bool
) -> None:
    home.provider({Y: LASTING})
    job = LaunchdJob(home)
    drained_and_dead(home)
    job.fault("bootstrap", 119)
    if agent:
        home.start_daemon()
    shown = home.ctl("provider", "forget")
    assert shown.returncode == 13
    assert f"launchctl bootstrap {job.domain} {job.plist}" in shown.stdout
    assert "--yes" in shown.stdout
    done = home.ctl("provider", "forget", "--yes")
    assert done.returncode == 0, done.stdout
    assert journal(home)["state"] == "released"
    assert home.ctl("provider", "status").returncode == 0
    assert home.ctl("provider", "forget").stdout.startswith("nothing is owed")
    if not agent:
        for process in candidates(home):
            process.kill()


# --- the roll-back itself ------------------------------------------------------------------------------


def written(tmp_path: Path, *, backup: bool = True) -> tuple[Path, Rollback]:
    """A configuration as an apply has left it, and the record of that."""
    path, old = tmp_path / "config.yaml", tmp_path / "config.yaml.bak-1-0"
    text = f"a: 1\n{NEW}kv_bits: 8\nb: 2\n"
    path.write_text(text, encoding="utf-8")
    if backup:
        old.write_text(f"a: 1\n{OLD}b: 2\nmax_context_override: 5\n", encoding="utf-8")
    lines: list[Lines] = [
        {"key": "model", "new": NEW, "old": OLD if backup else None},
        {"key": "kv_bits", "new": "kv_bits: 8\n", "old": None},
        {"key": "max_context_override", "new": None, "old": "max_context_override: 5\n"},
    ]
    digest = hashlib.sha256(text.encode()).hexdigest()
    saved = str(old) if backup else None
    return path, {"path": str(path), "backup": saved, "sha256": digest, "lines": lines}


def test_a_file_that_nobody_else_has_written_becomes_its_backup(tmp_path: Path) -> None:
    path, record = written(tmp_path)
    path.chmod(0o640)
    for _ in range(2):  # whoever finds it half done does it again
        roll_back(record)
        assert path.read_bytes() == (tmp_path / "config.yaml.bak-1-0").read_bytes()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_was_not_there_before_goes(tmp_path: Path) -> None:
    path, record = written(tmp_path, backup=False)
    roll_back(record)
    roll_back(record)
    assert not path.exists()


def test_what_somebody_has_changed_since_stays_and_our_own_lines_go_back(tmp_path: Path) -> None:
    path, record = written(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(f"token: rotated\n{text}c: 3", encoding="utf-8")
    expected = f"token: rotated\na: 1\n{OLD}b: 2\nc: 3\nmax_context_override: 5\n"
    for _ in range(2):
        roll_back(record)
        assert path.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("line", ["model: theirs\n", "model: new # theirs\n", "  model: new\n"])
def test_a_line_that_is_not_ours_any_more_stays(tmp_path: Path, line: str) -> None:
    path, record = written(tmp_path)
    path.write_text(f"a: 1\n{line}max_context_override: 9\n", encoding="utf-8")
    roll_back(record)
    assert path.read_text(encoding="utf-8") == f"a: 1\n{line}max_context_override: 9\n"


def test_the_provider_s_own_writer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators_file, "LOCK_S", 0.1)
    path, record = written(tmp_path)
    before = path.read_bytes()
    with operators_file.locked(path), pytest.raises(ApplyRefused):
        roll_back(record)
    assert path.read_bytes() == before
    roll_back(record)
    assert path.read_bytes() != before


def test_guardian_and_break_glass_need_the_standard_library_alone() -> None:
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.append({str(root)!r})\n"
        "import autotuned.host.restore.break_glass, autotuned.host.restore.orphans"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, timeout=DEADLINE_S)
    assert done.returncode == 0
