"""Installing the agent as a job of a scripted launchd, from outside, with the real programs."""

from __future__ import annotations

import json
import os
import plistlib
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.home import Home, Y, poll, port_is_free
from tests.support.live import LaunchdJob, install_launchctl

pytestmark = pytest.mark.slow  # each starts an agent of its own

LABEL = "live.streamvc.autotuned"
FORBIDDEN = {
    "Nice",
    "LowPriorityIO",
    "LowPriorityBackgroundIO",
    "EnableTransactions",
    "EnablePressuredExit",
    "SessionCreate",
    "StartInterval",
    "StartCalendarInterval",
    "Sockets",
    "LaunchOnlyOnce",
    "Debug",
}
SLOW: dict[str, Any] = {"load_s": 20}


def plist(home: Home) -> Path:
    return home.path / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def launchctl_calls(home: Home, verb: str) -> int:
    lines = (home.bin / "launchctl-calls.jsonl").read_text().splitlines()
    calls = [json.loads(line) for line in lines]
    return sum(entry["call"][0] == verb and "code" in entry for entry in calls)


def plan(home: Home, **planned: Any) -> None:
    (home.bin / "launchctl-plan.json").write_text(json.dumps(planned))


def test_install_starts_the_agent_as_a_job_and_again_changes_nothing_and_uninstall_reverses_it(
    home: Home,
) -> None:
    install_launchctl(home)
    first = home.ctl("install", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert (told["kind"], told["changed"]) == ("launchd", True)
    assert home.rpc("version")["pid"] == told["pid"]

    written = plistlib.loads(plist(home).read_bytes())
    assert stat.S_IMODE(plist(home).lstat().st_mode) == 0o644
    assert written["Label"] == LABEL
    assert written["RunAtLoad"] is True
    assert written["KeepAlive"] == {"SuccessfulExit": False}
    assert written["ExitTimeOut"] == 90
    assert written["ProcessType"] == "Interactive"
    assert written["AbandonProcessGroup"] is True
    assert written["Umask"] == 0o077
    assert written["StandardErrorPath"].startswith(f"{home.path}/Library/Logs/autotuned/")
    assert not FORBIDDEN & set(written)
    assert all(Path(word).is_absolute() for word in written["ProgramArguments"])
    environment = written["EnvironmentVariables"]
    assert environment["HOME"] == str(home.path)
    assert {"LANG", "PATH"} <= set(environment)
    assert "__" not in plist(home).read_text()

    again = home.ctl("install", "--json")
    assert json.loads(again.stdout)["changed"] is False
    assert json.loads(again.stdout)["pid"] == told["pid"]
    assert launchctl_calls(home, "bootstrap") == 1

    assert home.ctl("uninstall").returncode == 0
    assert not plist(home).exists()
    assert not home.socket.exists()
    assert "not installed" in home.ctl("uninstall").stdout


def test_a_stopped_job_is_started_through_launchd_when_somebody_asks_for_it(home: Home) -> None:
    install_launchctl(home)
    assert home.ctl("install").returncode == 0
    assert home.ctl("daemon", "stop").returncode == 0
    assert home.ctl("status").returncode == 0
    assert launchctl_calls(home, "kickstart") == 1
    state = json.loads((home.bin / "launchctl-state.json").read_text())
    assert state["jobs"][f"gui/{os.getuid()}/{LABEL}"]["pid"] == home.rpc("version")["pid"]


def test_an_upgrade_replaces_the_job_even_while_the_old_one_dies_slowly(home: Home) -> None:
    install_launchctl(home)
    assert home.ctl("install").returncode == 0
    before = home.rpc("version")["pid"]
    plist(home).write_bytes(plist(home).read_bytes().replace(b"Interactive", b"Background"))
    plan(home, dying_s=1.5, faults=[{"id": "eio", "verb": "bootstrap", "code": 5, "times": 2}])
    done = home.ctl("install")
    assert done.returncode == 0, done.stderr
    assert plistlib.loads(plist(home).read_bytes())["ProcessType"] == "Interactive"
    assert home.rpc("version")["pid"] != before


def test_an_agent_that_runs_without_the_job_gives_way_to_it(home: Home) -> None:
    install_launchctl(home)
    detached = home.start_daemon()
    done = home.ctl("install")
    assert done.returncode == 0, done.stderr
    assert detached.wait(10) == 0
    assert home.rpc("version")["pid"] != detached.pid


def test_no_run_is_cut_short_by_install_unless_forced(home: Home) -> None:
    install_launchctl(home)
    home.provider({Y: SLOW})
    run_id = home.begin(Y)
    refused = home.ctl("install")
    assert refused.returncode == 10
    assert run_id in refused.stderr
    assert "--cancel" in refused.stderr
    assert not plist(home).exists()
    assert home.ctl("uninstall").returncode == 0  # nothing is installed: nothing to stop
    assert home.rpc("status")["run"]["state"] == "running"
    forced = home.ctl("install", "--force")
    assert forced.returncode == 0, forced.stderr
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "interrupted"


def test_nothing_is_taken_away_while_a_live_provider_is_owed_and_uninstall_restores_it_first(
    home: Home,
) -> None:
    home.provider({Y: {}})
    live = LaunchdJob(home)
    assert home.ctl("install").returncode == 0
    live.fault("bootstrap", 5)
    begun = home.rpc("start", candidate_models=[Y], kv_bits_axis=[None], port=home.port, drain=True)
    ended = home.rpc("wait", run_id=begun["run_id"], timeout_s=150)  # it waits for its restore
    assert "timed_out" not in ended
    assert home.rpc("status")["lease"]["outstanding"] is True

    before = home.rpc("version")["pid"]
    plist(home).write_bytes(plist(home).read_bytes().replace(b"Interactive", b"Background"))
    refused = home.ctl("install")
    assert refused.returncode == 13
    assert "provider restore" in refused.stderr
    assert home.rpc("version")["pid"] == before

    live.mend()
    assert home.ctl("uninstall", timeout=90).returncode == 0
    assert live.back()
    assert not plist(home).exists()


def test_uninstall_restores_with_the_agent_dead_too(home: Home) -> None:
    home.provider({Y: {"replicates": [{"ttft_ms": 60_000, "total_ms": 61_000}]}})
    live = LaunchdJob(home)
    assert home.ctl("install").returncode == 0
    agent = psutil.Process(home.rpc("version")["pid"])
    home.rpc("start", candidate_models=[Y], kv_bits_axis=[None], port=home.port, drain=True)
    poll(lambda: any(entry["request"] == "replicate" for entry in home.calls("request")))
    agent.suspend()
    for child in agent.children():
        child.kill()
    agent.kill()
    poll(lambda: not agent.is_running() or agent.status() == psutil.STATUS_ZOMBIE)
    assert not live.alive()
    done = home.ctl("uninstall", timeout=90)
    assert done.returncode == 0, done.stderr
    assert live.back()
    poll(lambda: port_is_free(home.port), "no candidate is left")


@pytest.mark.parametrize(("code", "remedy"), [(119, "launchctl enable"), (161, "Login Items")])
def test_a_job_that_is_switched_off_is_told_with_its_remedy(
    home: Home, code: int, remedy: str
) -> None:
    install_launchctl(home)
    plan(home, faults=[{"id": "off", "verb": "bootstrap", "code": code}])
    refused = home.ctl("install")
    assert refused.returncode == 1
    assert remedy in refused.stderr
    assert refused.stderr.count("\n") <= 3


def test_without_a_session_at_the_screen_the_job_goes_into_the_user_domain(home: Home) -> None:
    install_launchctl(home)
    plan(home, domains=["user"], absent=125)
    done = home.ctl("install", "--json")
    assert json.loads(done.stdout)["where"] == f"user/{os.getuid()}"
    assert home.ctl("uninstall").returncode == 0
    assert not home.socket.exists()


def test_settings_that_cannot_be_used_are_told_by_install_with_file_key_and_rule(
    home: Home,
) -> None:
    install_launchctl(home)
    home.settings("[log]\nlevel = 3\n")
    refused = home.ctl("install", timeout=90)
    assert refused.returncode == 1
    assert "autotuned.toml: log.level" in refused.stderr
    assert home.ctl("uninstall").returncode == 0
    poll(lambda: not home.processes(), "the crashing job is gone")


def test_where_there_is_no_launchd_the_same_verbs_drive_systemd(home: Home) -> None:
    systemctl = home.bin / "systemctl"
    source = Path(__file__).parents[1] / "support" / "fake_systemctl.py"
    systemctl.write_text(f"#!{sys.executable} -S\n{source.read_text()}", encoding="utf-8")
    systemctl.chmod(0o755)
    folder = home.path / "odd % name"
    folder.mkdir()
    home.environ["HF_HOME"] = str(folder)
    done = home.ctl("install", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["kind"], told["changed"]) == ("systemd", True)
    unit = Path(told["path"]).read_text()
    assert "__" not in unit
    assert "Restart=on-failure" in unit
    assert "KillMode=process" in unit  # the guardian survives
    assert "TimeoutStopSec=90" in unit
    agent = psutil.Process(told["pid"])
    assert agent.environ()["HF_HOME"] == str(folder)
    assert json.loads(home.ctl("install", "--json").stdout)["changed"] is False
    assert home.ctl("daemon", "restart").returncode == 0
    assert home.rpc("version")["pid"] != told["pid"]
    assert home.ctl("uninstall").returncode == 0
    assert not Path(told["path"]).exists()
    assert not home.socket.exists()
    calls = [
        json.loads(line) for line in (home.bin / "systemctl-calls.jsonl").read_text().splitlines()
    ]
    assert ["--user", "enable", "autotuned.service"] in calls
    assert ["--user", "disable", "autotuned.service"] in calls
    assert all(call[0] == "--user" for call in calls)

    plan = {"daemon-reload": [1, "Failed to connect to bus: No medium found"]}
    (home.bin / "systemctl-plan.json").write_text(json.dumps(plan))
    refused = home.ctl("install")
    assert refused.returncode == 1
    assert "autotunectl daemon start" in refused.stderr


def test_settings_that_cannot_be_used_end_the_agent_with_2_and_are_told_by_whoever_starts_it(
    home: Home,
) -> None:
    home.settings("[provider]\nkind = 'nonsuch'\n")
    agent = subprocess.run(
        [sys.executable, "-m", "autotuned"],
        env=home.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert agent.returncode == 2
    asked = home.ctl("status")
    assert asked.returncode == 2
    for said in (agent.stderr, asked.stderr):
        assert "autotuned.toml: provider.kind" in said
        assert "'nonsuch'" in said
    assert "hint: autotunectl doctor" in asked.stderr
