"""`doctor`, `daemon reload`, `logs` and `bugreport`, from outside with the real programs."""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import re
import socket
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import tools
from tests.support.home import DEADLINE_S, Home, RpcError, Y, poll
from tests.support.live import install_launchctl

pytestmark = pytest.mark.slow  # each starts an agent of its own

TOKEN, HUB_TOKEN, LOOSE = "provider-t0ken-9d1f", "hub-t0ken-77aa", "hf_" + "A1b2C3d4E5f6G7h8"


def check(home: Home, name: str) -> dict[str, Any]:
    found = [entry for entry in home.rpc("doctor")["checks"] if entry["name"] == name]
    assert len(found) == 1, name
    return dict(found[0])


def config(home: Home) -> Path:
    folder = home.path / ".config" / "macprovider"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "config.yaml"


def test_doctor_names_what_is_broken_with_its_remedy_and_exits_1(home: Home) -> None:
    home.provider({Y: {}}, help="OPTIONS: --model --port")
    config(home).write_text("model: [\n  secret-word-in-it", encoding="utf-8")
    config(home).chmod(0o644)
    home.start_daemon()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", home.port))
        stranger.listen()
        done = home.ctl("doctor", "--json")
    found = json.loads(done.stdout)
    by_name = {entry["name"]: entry for entry in found["checks"]}
    assert done.returncode == 1
    assert found["ok"] is False
    assert by_name["provider"]["level"] == "error"
    assert "--no-join" in by_name["provider"]["detail"]
    assert by_name["provider-config"]["level"] == "error"
    assert "secret-word-in-it" not in done.stdout
    for entry in found["checks"]:
        assert set(entry) == {"name", "ok", "level", "detail", "remedy"}
        assert entry["ok"] is (entry["level"] != "error")
        assert entry["ok"] or entry["remedy"]


def test_doctor_without_an_agent_says_why_there_is_none(home: Home) -> None:
    home.settings("[provider]\nready_timeout_s = -1\n")
    done = home.ctl("doctor")
    assert done.returncode == 1
    assert "provider.ready_timeout_s" in done.stdout
    assert "greater than 0" in done.stdout
    home.settings("")
    folder = home.path / ".config" / "macprovider" / "run"
    folder.chmod(0o755)
    done = home.ctl("doctor")
    assert f"chmod 700 '{folder}'" in done.stdout
    folder.chmod(0o700)


def test_reload_uses_what_it_can_names_what_needs_a_restart_and_refuses_what_is_wrong(
    home: Home,
) -> None:
    home.provider({Y: {}})
    home.start_daemon()
    home.settings('[provider]\nmax_tokens = 12\n[log]\nlevel = "debug"\nformat = "text"\n')
    assert check(home, "settings")["level"] == "warning"
    done = home.ctl("daemon", "reload", "--json")
    told = json.loads(done.stdout)
    assert sorted(told["applied"]) == ["log.level", "provider.max_tokens"]
    assert told["restart"] == ["log.format"]
    home.tune(Y)
    assert home.sql("SELECT DISTINCT max_tokens FROM tune_trials") == [(12,)]

    home.settings('[log]\nlevel = "loud"\n')
    refused = home.ctl("daemon", "reload")
    assert refused.returncode == 2
    assert re.search(r"autotuned\.toml: log\.level: .*'loud'", refused.stderr)
    with pytest.raises(RpcError) as error:
        home.rpc("reload")
    assert error.value.data["key"] == "log.level"
    assert error.value.data["file"].endswith("autotuned.toml")
    assert check(home, "settings")["level"] == "error"


def test_secrets_never_reach_a_log_an_event_a_report_or_an_archive(home: Home) -> None:
    """Not even where the provider prints them while it fails."""
    home.environ["HF_TOKEN"] = HUB_TOKEN
    config(home).write_text(f"model: mine\ntoken: {TOKEN}\n", encoding="utf-8")
    config(home).chmod(0o600)
    line = f"fatal error: refused with {TOKEN} and {HUB_TOKEN} and {LOOSE}"
    home.provider({Y: {"log": [line], "exit_code": 3}})
    home.settings('[log]\nlevel = "debug"\n')
    document = home.tune(Y)
    assert document["exit_reason"] == "no_feasible"
    assert "fatal error" in document["infeasible"][0]["reason"]
    archive = home.path / "report.tar.gz"
    assert home.ctl("bugreport", str(archive)).returncode == 0
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as packed:
        files = {member.name: packed.extractfile(member) for member in packed}
        content = "\n".join(file.read().decode() for file in files.values() if file is not None)
    assert "fatal error" in content
    assert {"autotuned-bugreport/doctor.json", "autotuned-bugreport/autotuned.log"} <= set(files)
    told = [
        content,
        json.dumps(document),
        json.dumps(home.rpc("trials", run_id=document["run_id"])),
        json.dumps(home.sql("SELECT * FROM events")),
        json.dumps(home.sql("SELECT notes FROM tune_trials")),
        home.ctl("logs").stdout,
        home.ctl("logs", document["run_id"]).stdout,
        (home.path / "state" / "autotuned" / "autotuned.log").read_text(),
    ]
    for text in told:
        for secret in (TOKEN, HUB_TOKEN, LOOSE):
            assert secret not in text
    for path in (home.path / "state" / "autotuned").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_logs_are_followed_across_a_rotation_and_readable_with_the_agent_dead(home: Home) -> None:
    home.start_daemon()
    log = home.path / "state" / "autotuned" / "autotuned.log"
    follower = home.ctl_begin("logs", "-f", "--json", "--lines", "0")
    try:
        assert follower.stdout is not None
        output = follower.stdout.fileno()
        os.set_blocking(output, False)
        seen = ""

        def arrived(word: str) -> bool:
            nonlocal seen
            with contextlib.suppress(BlockingIOError):
                seen += os.read(output, 1 << 16).decode()
            return word in seen

        poll(lambda: write(log, "before") and arrived("before"))
        log.rename(log.with_name("autotuned.log.1"))
        log.write_text("after-the-rotation\n", encoding="utf-8")
        poll(lambda: arrived("after-the-rotation"))
    finally:
        follower.kill()
        follower.communicate()
    home.rpc("shutdown")
    told = home.ctl("logs", "--lines", "500").stdout
    assert "after-the-rotation" in told
    assert "listening  socket=" in told
    assert home.ctl("logs", "no-such-run").returncode == 11


def restart(home: Home) -> None:
    """Stop the agent and start another one."""
    home.rpc("shutdown")
    assert home.daemon is not None
    home.daemon.wait(DEADLINE_S)
    home.start_daemon()


def write(log: Path, line: str) -> bool:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return True


def test_doctor_sees_what_a_mac_does_to_measurements_and_to_the_job(home: Home) -> None:
    install_launchctl(home)
    tools.install(
        home.bin,
        "pmset",
        {"-g batt": "Now drawing from 'Battery Power'", "-g": " lowpowermode         1"},
    )
    home.provider({Y: {}})
    home.start_daemon()
    power = check(home, "power")
    assert power["level"] == "warning"
    assert "battery" in power["detail"]
    assert "low-power" in power["detail"]

    label = "live.streamvc.autotuned"
    agents = home.path / "Library" / "LaunchAgents"
    agents.mkdir(parents=True)
    plist = {"Label": label, "ProgramArguments": ["/gone/venv/bin/autotuned"]}
    (agents / f"{label}.plist").write_bytes(plistlib.dumps(plist))
    assert "/gone/venv" in check(home, "job")["detail"]
    plist["ProgramArguments"] = [sys.executable]
    (agents / f"{label}.plist").write_bytes(plistlib.dumps({**plist, "ProcessType": "Background"}))
    assert check(home, "job")["level"] == "error"
    assert check(home, "job")["remedy"] == "autotunectl install"

    domain = f"gui/{os.getuid()}"
    disable = [str(home.bin / "launchctl"), "disable", f"{domain}/live.streamvc.macprovider"]
    subprocess.run(disable, env=home.environ, check=True)
    off = check(home, "disabled-jobs")
    assert off["level"] == "error"
    assert f"launchctl enable {domain}/live.streamvc.macprovider" in off["remedy"]

    (home.bin / "launchctl-plan.json").write_text(json.dumps({"domains": ["user"], "absent": 112}))
    assert "ssh" in check(home, "launchd")["detail"]
    plan = {"faults": [{"id": "hangs", "verb": "print", "hang_s": 60}]}
    (home.bin / "launchctl-plan.json").write_text(json.dumps(plan))
    assert check(home, "launchd")["level"] == "error"


def test_doctor_refuses_a_niced_agent(home: Home) -> None:
    home.provider({Y: {}})
    home.start_daemon()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert home.daemon is not None
    os.setpriority(os.PRIO_PROCESS, home.daemon.pid, before + 5)
    assert check(home, "priority")["level"] == "error"
    assert home.ctl("doctor").returncode == 1


def test_a_log_that_cannot_be_written_harms_nobody(home: Home) -> None:
    home.provider({Y: {}})
    home.start_daemon()
    log = home.path / "state" / "autotuned" / "autotuned.log"
    log.unlink()
    log.mkdir()
    restart(home)
    assert home.tune(Y)["exit_reason"] == "ok"
    log.rmdir()
