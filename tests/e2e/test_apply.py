"""Apply and revert from outside: the file, the refusals, what is printed, and what never leaves the file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import any_server
from tests.support.home import Home, RpcError, X, Y, free_port, poll, port_is_free
from tests.support.live import LaunchdJob

pytestmark = pytest.mark.slow  # each starts an agent of its own

SECRET = "tok-3f9a-never-shown"  # noqa: S105 - what must not be seen anywhere
OPERATORS = f"""# mine
model: acme/old-3B   # since March
port: 8080
provider_token: {SECRET}
kv_bits: 4
note: |
  model: not this one
"""
SMALL = {"stage2_replicates": 1}


def config(home: Home, text: str | None = OPERATORS) -> Path:
    """The provider's configuration, as the operator wrote it."""
    path = home.path / ".config" / "macprovider" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")
    return path


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.bak-*"))


def refused(home: Home, method: str = "apply", **params: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        home.rpc(method, **params)
    assert error.value.code == -32004
    return error.value


def test_only_owned_keys_change_and_the_backup_is_byte_identical(home: Home) -> None:
    path = config(home)
    path.chmod(0o640)
    home.provider({Y: {}})
    run_id = home.tune(Y, **SMALL)["run_id"]
    done = home.ctl("apply")
    (backup,) = backups(path)
    assert done.returncode == 0
    assert done.stdout == (
        f"applied: model={Y} kv_bits=unset max_concurrency_override=1 max_context_override=2000 "
        f"(backup at {backup})\n"
    )
    assert path.read_text(encoding="utf-8") == (
        OPERATORS.replace("acme/old-3B", Y).replace("kv_bits: 4\n", "")
        + "max_concurrency_override: 1\nmax_context_override: 2000\n"
    )
    assert backup.read_bytes() == OPERATORS.encode()
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, backup)] == [0o640, 0o640]
    uid, plist = os.getuid(), home.path / "Library/LaunchAgents/live.streamvc.macprovider.plist"
    assert f"launchctl bootout gui/{uid}/live.streamvc.macprovider\n" in done.stderr
    assert f"launchctl bootstrap gui/{uid} {plist}\n" in done.stderr
    assert home.sql("SELECT applied FROM tune_runs") == [(1,)]
    document = home.rpc("result", run_id=run_id)
    assert document["applied"]["backup_path"] == str(backup)
    assert document["applied"]["changed"]["model"] == {"before": "acme/old-3B", "after": Y}


def test_the_second_apply_of_the_same_recipe_changes_nothing(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    first = home.rpc("apply")
    before = path.stat()
    again = home.ctl("apply", "--json")
    found = json.loads(again.stdout)
    assert (found["applied"], found["changed"], found["backup_path"]) == (True, {}, None)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(backups(path)) == 1
    assert home.ctl("apply").stdout.endswith("(nothing changed, no backup)\n")
    assert home.rpc("result")["applied"]["backup_path"] == first["backup_path"]


def test_revert_puts_the_newest_backup_back_and_backs_up_what_it_replaces(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    first = Path(home.rpc("apply")["backup_path"])
    applied = path.read_bytes()
    done = home.ctl("revert")
    assert done.returncode == 0
    assert done.stdout.startswith(f"reverted: {path} is {first} again (backup at ")
    assert path.read_text(encoding="utf-8") == OPERATORS
    assert [b.read_bytes() for b in backups(path) if b != first] == [applied]
    assert home.ctl("revert", first.name).stdout.endswith("already (nothing changed)\n")
    assert home.ctl("revert").returncode == 0
    assert path.read_bytes() == applied


def test_revert_takes_nothing_but_a_backup_of_this_file(home: Home) -> None:
    path = config(home)
    path.with_name("config.yaml.bak-5-0").write_text("model: a\n", encoding="utf-8")
    path.with_name("config.yaml.bak-1-0").symlink_to("/etc/passwd")
    home.start_daemon()
    for name in ("config.yaml.bak-1-0", "../config.yaml", "autotune.sqlite", "/etc/passwd", ""):
        assert refused(home, "revert", backup=name).data["reason"] == "no_backup"
    assert path.read_text(encoding="utf-8") == OPERATORS


def test_a_dry_run_prints_the_difference_of_our_lines_and_writes_nothing(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    done = home.ctl("apply", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == (
        "--- config.yaml\n+++ config.yaml\n"
        f"@@ -2,1 +2,1 @@\n-model: acme/old-3B   # since March\n+model: {Y}   # since March\n"
        "@@ -5,1 +4,0 @@\n-kv_bits: 4\n"
        "@@ -7,0 +7,2 @@\n+max_concurrency_override: 1\n+max_context_override: 2000\n"
    )
    assert path.read_text(encoding="utf-8") == OPERATORS
    assert backups(path) == []
    assert home.sql("SELECT applied FROM tune_runs") == [(0,)]


def test_start_apply_writes_what_it_found_and_says_so(home: Home) -> None:
    path = config(home, None)
    home.provider({Y: {}})
    home.start_daemon()
    done = home.ctl(
        *("start", "--apply", "--wait", "--candidate-models", Y, "--port", str(home.port)),
        *("--kv-bits-axis", "8", "--max-batch-axis", "1"),
    )
    assert done.returncode == 0
    assert f"applied: model={Y} kv_bits=8 " in done.stdout
    assert "(no backup: there was no file)" in done.stdout
    assert "launchctl bootstrap" in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text(encoding="utf-8") == (
        f"model: {Y}\nkv_bits: 8\nmax_concurrency_override: 1\nmax_context_override: 2000\n"
    )
    kinds = home.sql("SELECT type, fields_json FROM events WHERE type IN ('applied', 'phase')")
    order = [json.loads(fields).get("phase", kind) for kind, fields in kinds]
    assert order[-4:] == ["applying", "applied", "restoring", "finished"]
    assert home.sql("SELECT applied FROM tune_runs") == [(1,)]


def test_a_refusal_at_the_end_of_a_run_keeps_its_recommendation(home: Home) -> None:
    path = config(home, "- no mapping\n")
    home.provider({Y: {}})
    document = home.tune(Y, apply=True, **SMALL)
    assert document["exit_reason"] == "ok"
    assert document["recommendation"]["model"] == Y
    assert document["applied"] is None
    assert any("not applied" in said and "no YAML mapping" in said for said in document["warnings"])
    assert path.read_text(encoding="utf-8") == "- no mapping\n"


def test_a_partial_recommendation_is_applied_only_when_that_is_allowed(home: Home) -> None:
    path = config(home)
    home.provider({Y: {"cells": {"8/1/2000": {"load_s": 60}}}})
    run_id = home.begin(Y, kv_bits_axis=[None, 8], apply=True, **SMALL)
    poll(lambda: any(entry["knobs"] == "8/1/2000" for entry in home.calls("started")))
    home.rpc("cancel")
    home.rpc("wait", run_id=run_id, timeout_s=30)
    document = home.rpc("result", run_id=run_id)
    assert document["recommendation"]["partial"] is True
    assert document["applied"] is None
    assert any("--allow-partial" in said for said in document["warnings"])
    done = home.ctl("apply", run_id)
    assert done.returncode == 12
    assert "--allow-partial" in done.stderr
    assert path.read_text(encoding="utf-8") == OPERATORS
    assert home.ctl("apply", run_id, "--allow-partial").returncode == 0


def test_a_run_without_recommendation_is_refused_while_it_runs_and_after(home: Home) -> None:
    config(home)
    home.provider({Y: {"load_s": 60}})
    home.begin(Y)
    assert refused(home).data["reason"] == "running"
    home.rpc("cancel")
    home.rpc("wait", timeout_s=30)
    error = refused(home)
    assert error.data["reason"] == "no_recommendation"
    done = home.ctl("apply")
    assert (done.returncode, done.stdout) == (12, "")
    assert home.ctl("apply", "no-such-run").returncode == 11


def test_a_recipe_of_another_machine_is_refused_unless_forced(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}}, version="1.0.0")
    home.tune(Y, **SMALL)
    home.provider({Y: {}}, version="2.0.0")
    error = refused(home)
    assert error.data["reason"] == "other_machine"
    assert "version" in error.message
    assert "--force" in error.message
    assert path.read_text(encoding="utf-8") == OPERATORS
    assert home.ctl("apply", "--force").returncode == 0


def test_pins_to_the_old_model_are_warned_about(home: Home) -> None:
    pinned = "draft_model: small\nsupported_models: [acme/old-3B]\n"
    config(home, OPERATORS + pinned)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    done = home.ctl("apply")
    assert done.returncode == 0
    for key in ("draft_model", "supported_models"):
        assert f": {key} " in done.stderr


def test_a_file_that_cannot_be_edited_is_refused_unchanged_and_not_quoted(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    for text, reason in (
        (f"provider_token: '{SECRET}\n", "not valid YAML"),
        (f"provider_token: *{SECRET}\n", "not valid YAML"),
        (f"{SECRET}\n", "no YAML mapping"),
        (f"{SECRET}: 1\nmodel: a\nmodel: b\n", "twice"),
    ):
        path.write_text(text, encoding="utf-8")
        error = refused(home)
        assert error.data["reason"] == "unusable_file"
        assert reason in error.message
        assert SECRET not in json.dumps(error.data) + error.message
        assert path.read_text(encoding="utf-8") == text
    assert home.ctl("apply").returncode == 12
    assert backups(path) == []
    nothing_tells(home)


def test_no_secret_of_the_file_leaves_it(home: Home) -> None:
    path = config(home, OPERATORS.rstrip("\n").replace("note", f"last: {SECRET}\nnote"))
    home.provider({X: {}, Y: {}})
    document = home.tune(Y, apply=True, **SMALL)
    said = [document, home.rpc("apply", dry_run=True), home.rpc("revert"), home.rpc("apply")]
    path.write_text(f"model: x\ntoken: {SECRET}", encoding="utf-8")
    said += [home.rpc("apply", dry_run=True), home.rpc("revert"), home.rpc("status")]
    assert SECRET not in json.dumps(said)
    nothing_tells(home)


def nothing_tells(home: Home) -> None:
    """No log, event or row of this home holds the secret."""
    assert home.sql("SELECT 1 FROM events WHERE fields_json LIKE ?", f"%{SECRET}%") == []
    logs = [path for path in (home.path / "state").rglob("*") if path.is_file()]
    assert logs
    for path in logs:
        assert SECRET not in path.read_text(encoding="utf-8", errors="replace"), path
    for path in home.database.parent.glob(f"{home.database.name}*"):
        assert SECRET.encode() not in path.read_bytes()


# --- against the provider of today --------------------------------------------------------------------

BOUND = (
    OPERATORS + "model_artifact_sha256: ab\nmodel_catalog_key: old\nmax_context_override: 32000\n"
)


def test_another_model_is_refused_where_the_file_binds_its_own_and_the_knobs_alone_are_not(
    home: Home,
) -> None:
    path = config(home, BOUND)
    home.provider({Y: {}})
    document = home.tune(Y, kv_bits_axis=[None, 8], max_batch_axis=[1, 2], **SMALL)
    error = refused(home)
    assert (error.data["reason"], error.data["keys"]) == (
        "bound_model",
        ["model_artifact_sha256", "model_catalog_key"],
    )
    done = home.ctl("apply")
    assert done.returncode == 12
    for words in ("model_artifact_sha256", "model_catalog_key", "autotunectl apply --knobs-only"):
        assert words in done.stderr
    assert "macprovider-cli autotune --recommend --apply" in done.stderr
    assert home.ctl("apply", "--dry-run").returncode == 12
    assert path.read_text(encoding="utf-8") == BOUND
    assert backups(path) == []
    done = home.ctl("apply", "--knobs-only")
    assert done.returncode == 0
    knobs = document["recommendation"]["knobs"]
    bits, slots = knobs["kv_bits"], knobs["max_concurrency_override"]
    assert path.read_text(encoding="utf-8") == BOUND.replace(
        "kv_bits: 4\n", "" if bits is None else f"kv_bits: {bits}\n"
    ) + (f"max_concurrency_override: {slots}\nmax_concurrency_source: owner\n")
    assert (
        "kept: max_context_override 32000 (this run measured at 2000 and did not search it); "
        "--all-knobs writes it" in done.stderr
    )
    assert done.stdout.startswith(
        f"applied: model=acme/old-3B kv_bits={'unset' if bits is None else bits} "
        f"max_concurrency_override={slots} max_context_override=32000 "
    )
    assert home.ctl("apply", "--knobs-only").stdout.endswith("(nothing changed, no backup)\n")
    assert home.ctl("apply", "--knobs-only", "--all-knobs").returncode == 0
    assert "max_context_override: 2000\n" in path.read_text(encoding="utf-8")


def test_start_apply_says_before_a_run_that_another_model_will_not_be_applied_and_exits_12(
    home: Home,
) -> None:
    path = config(home, BOUND)
    home.provider({Y: {}})
    home.start_daemon()
    words = ("--apply", "--candidate-models", Y, "--port", str(home.port), "--kv-bits-axis", "8")
    said = home.ctl("start", *words, "--dry-run").stderr
    assert "model_catalog_key" in said
    assert "--knobs-only" in said
    assert "warning" not in home.ctl("start", *words, "--dry-run", "--knobs-only").stderr
    done = home.ctl("start", *words, "--max-batch-axis", "1", "--wait")
    assert done.returncode == 12, done.stderr
    assert done.stdout.startswith("RECOMMENDATION")
    assert path.read_text(encoding="utf-8") == BOUND
    document = home.rpc("result")
    assert (document["exit_reason"], document["applied"]) == ("ok", None)
    assert any("not applied: " in said for said in document["warnings"])
    assert any("will not be applied" in said for said in document["warnings"])


def test_start_apply_with_knobs_only_leaves_the_model_and_what_was_not_searched(home: Home) -> None:
    path = config(home, BOUND)
    home.provider({Y: {}})
    home.start_daemon()
    words = ("--apply", "--candidate-models", Y, "--port", str(home.port), "--kv-bits-axis", "8")
    done = home.ctl("start", *words, "--knobs-only", "--wait")
    assert done.returncode == 0, done.stderr
    assert "applied: model=acme/old-3B kv_bits=4 " in done.stdout
    assert "kept: kv_bits 4 (this run measured at 8 and did not search it)" in done.stderr
    slots = home.rpc("result")["recommendation"]["knobs"]["max_concurrency_override"]
    text = path.read_text(encoding="utf-8")
    assert text == BOUND + f"max_concurrency_override: {slots}\nmax_concurrency_source: owner\n"


def test_a_plain_file_is_written_whole_with_a_warning_for_a_value_that_is_lowered(
    home: Home,
) -> None:
    path = config(home, OPERATORS + "max_context_override: 32000\n")
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    done = home.ctl("apply")
    assert done.returncode == 0
    assert done.stderr.count("is lowered from 32000 to 2000") == 1
    assert "max_context_override: 2000\n" in path.read_text(encoding="utf-8")
    assert "max_concurrency_source" not in path.read_text(encoding="utf-8")


def test_the_serve_command_of_a_recommendation_starts_and_says_what_joins_instead(
    home: Home,
) -> None:
    home.provider({Y: {}})
    document = home.tune(Y, **SMALL)
    assert "--no-join" in document["recommendation"]["serve_command"].split()
    assert "to join with this recipe" in document["recommendation"]["serve_note"]
    assert document["recommendation"]["serve_note"] in " ".join(home.ctl("show").stdout.split())


def test_a_revert_keeps_what_was_changed_since_and_with_whole_puts_the_file_back(
    home: Home,
) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    first = Path(home.rpc("apply")["backup_path"])
    rotated = path.read_text(encoding="utf-8").replace(SECRET, "tok-new") + "added: since\n"
    path.write_text(rotated, encoding="utf-8")
    done = home.ctl("revert")
    assert done.returncode == 0, done.stderr
    assert "revert --whole" in done.stderr
    surgical = OPERATORS.replace(SECRET, "tok-new") + "added: since\n"
    assert path.read_text(encoding="utf-8") == surgical
    again = home.ctl("revert", first.name)
    assert again.stdout.endswith("already (nothing changed)\n")
    assert home.ctl("revert", first.name, "--whole").returncode == 0
    assert path.read_bytes() == first.read_bytes() == OPERATORS.encode()
    kept = [backup.read_text(encoding="utf-8") for backup in backups(path)]
    assert rotated in kept
    assert surgical in kept


def test_an_apply_waits_for_a_writer_that_holds_the_providers_lock_and_names_one_that_stays(
    home: Home,
) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    script = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\nprint('held', flush=True)\n"
        "time.sleep(float(sys.argv[2]))\nopen(sys.argv[3], 'a').write('theirs: 1\\n')\n"
    )

    def writer(seconds: float) -> subprocess.Popen[str]:
        lock = path.parent / ".config.yaml.lock"
        words = [sys.executable, "-c", script, str(lock), str(seconds), str(path)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    with writer(60) as stays:
        try:
            error = refused(home)
        finally:
            stays.kill()
    assert error.data["reason"] == "locked"
    assert f"(pid {stays.pid})" in error.message
    assert path.read_text(encoding="utf-8") == OPERATORS
    with writer(1) as goes:
        assert home.ctl("apply").returncode == 0
    assert goes.returncode == 0
    text = path.read_text(encoding="utf-8")
    assert "theirs: 1\n" in text
    assert f"model: {Y}" in text


# --- making it live ---------------------------------------------------------------------------------


def test_with_a_drain_the_configuration_is_written_before_the_provider_is_back(
    home: Home,
) -> None:
    home.provider({Y: {}, "*": {}})
    job = LaunchdJob(home)
    document = home.tune(Y, drain=True, apply=True, **SMALL)
    assert document["exit_reason"] == "ok"
    assert document["applied"]["hint"] is None
    poll(job.serving, "the provider is back")
    assert f"model: {Y}" in job.starts()[-1]["config"]
    kinds = [kind for (kind,) in home.sql("SELECT type FROM events ORDER BY seq")]
    assert kinds.index("drain.done") < kinds.index("applied") < kinds.index("restore.begun")


def test_apply_restart_makes_it_live_and_without_it_the_commands_of_the_loaded_job_are_told(
    home: Home,
) -> None:
    home.provider({Y: {}, "*": {}})
    job = LaunchdJob(home)
    home.tune(Y, drain=True, **SMALL)
    poll(job.serving)
    told = home.rpc("apply")
    assert told["hint"].splitlines() == [
        f"launchctl bootout {job.target}",
        f"while launchctl print {job.target} >/dev/null 2>&1; do sleep 1; done",
        f"launchctl bootstrap {job.domain} {job.plist}",
    ]
    before = job.pid()
    done = home.ctl("apply", "--restart")
    assert done.returncode == 0, done.stderr
    assert "restarted" in done.stderr
    assert "launchctl" not in done.stderr
    poll(job.serving, "the provider is back")
    assert job.pid() != before
    assert f"model: {Y}" in job.starts()[-1]["config"]
    assert home.rpc("status")["lease"] is None


def test_a_restart_that_cannot_bring_it_back_exits_13_and_is_tried_again(home: Home) -> None:
    home.provider({Y: {}, "*": {}})
    job = LaunchdJob(home)
    home.tune(Y, drain=True, **SMALL)
    poll(job.serving)
    job.fault("bootstrap", 5, times=6)
    done = home.ctl("apply", "--restart", timeout=90)
    assert done.returncode == 13, done.stderr
    assert f"model: {Y}" in job.config.read_text(encoding="utf-8")
    job.mend()
    home.rpc("provider.restore")
    poll(job.serving, "the provider is back")


def test_a_restart_without_a_job_is_a_warning_and_the_recipe_is_written(home: Home) -> None:
    path = config(home)
    home.provider({Y: {}})
    home.settings(home.private_program())
    home.provider({Y: {}})
    home.tune(Y, **SMALL)
    done = home.ctl("apply", "--restart")
    assert done.returncode == 0
    assert "not restarted: no live provider runs" in done.stderr
    assert "launchctl bootstrap" in done.stderr
    assert f"model: {Y}" in path.read_text(encoding="utf-8")


DESCRIBED = """
[provider]
kind = "mine"
binary = "{program}"

[servers.mine]
command = ["{program}", "--model", "{{source}}", "--alias", "{{model}}", "--port", "{{port}}"]
version = ["{program}", "--version"]
process = ["{name}"]

[servers.mine.knobs.threads]
flag = ["-t", "{{value}}"]
"""


def test_a_script_is_made_live_by_running_it_and_a_terminals_server_by_stopping_it_first(
    home: Home,
) -> None:
    program = home.bin / f"mine-{home.path.name}"
    source = Path(any_server.__file__).read_text(encoding="utf-8")
    program.write_text(f"#!{sys.executable}\n{source}")
    program.chmod(0o755)
    home.settings(DESCRIBED.format(program=program, name=program.name))
    home.cache(Y)
    asked: dict[str, Any] = {
        "max_batch_axis": [1],
        "kv_bits_axis": [None],
        "axes": {"threads": [2]},
        **SMALL,
    }
    home.tune(Y, **asked)
    written = home.path / ".config" / "macprovider" / "serve-recipe.sh"
    done = home.ctl("apply")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].strip() == str(written)
    assert "launchctl" not in done.stderr
    port = free_port()
    live = subprocess.Popen(
        [str(program), "--model", Y, "--port", str(port)], env=home.environ, start_new_session=True
    )
    try:
        poll(lambda: not port_is_free(port), "it serves")
        again = home.ctl("apply")
        assert f"{written} has this recipe already" in again.stdout + again.stderr
        assert f"kill {live.pid}\n" in again.stderr
        words = ("--drain", "--restart-foreground", "--apply", "--wait", "--axis", "threads=3")
        small = ("--max-batch-axis", "1", "--kv-bits-axis", "unset", "--stage2-replicates", "1")
        more = home.ctl("start", "--candidate-models", Y, "--port", str(home.port), *words, *small)
        assert more.returncode == 0, more.stderr
        assert "-t 3" in written.read_text(encoding="utf-8")
        assert "comes back with its own arguments" in more.stdout + more.stderr
        assert "max_concurrency_override" not in more.stdout
    finally:
        live.kill()
        live.wait()
        for process in psutil.process_iter(["cmdline"]):
            if str(program) in (process.info["cmdline"] or []):
                process.kill()
