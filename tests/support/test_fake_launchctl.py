"""The scripted launchctl keeps what reference pages say of the real one, so that tests built on it mean something."""

from __future__ import annotations

import pytest

from tests.support.home import Home, Y, poll
from tests.support.live import FOREVER, OLD_LABEL, LaunchdJob


@pytest.fixture
def job(home: Home) -> LaunchdJob:
    home.provider({Y: {}})
    return LaunchdJob(home)


def test_a_boot_out_returns_before_the_job_is_gone(job: LaunchdJob) -> None:
    job.plan(dying_s=FOREVER)
    pid = job.pid()
    assert job.launchctl("bootout", job.target).returncode == 0
    dying = job.launchctl("print", job.target)
    assert dying.returncode == 0
    assert "state = SIGTERMed" in dying.stdout
    early = job.launchctl("bootstrap", job.domain, str(job.plist))
    assert (early.returncode, early.stderr.strip()) == (
        5,
        "Bootstrap failed: 5: Input/output error",
    )
    job.plan(dying_s=0.0)
    poll(lambda: job.launchctl("print", job.target).returncode == 113)
    assert not job.alive()
    assert job.launchctl("bootout", job.target).returncode == 3
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 0
    poll(job.serving)
    assert job.pid() != pid
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 37
    printed = job.launchctl("print", job.target).stdout
    assert f"pid = {job.pid()}" in printed
    assert f"path = {job.plist}" in printed
    assert f"program = {job.argv[0]}" in printed


@pytest.mark.slow
def test_domains_and_labels_that_are_not_there(job: LaunchdJob) -> None:
    assert job.launchctl("print", f"{job.domain}/{OLD_LABEL}").returncode == 113
    assert job.launchctl("print", f"system/{job.label}").returncode == 113
    job.plan(domains=["user"], absent=112)
    assert job.launchctl("print", job.domain).returncode == 112
    assert job.launchctl("managername").stdout == "Background\n"
    assert job.launchctl("error", "161").stdout.startswith("161: Service cannot load")


@pytest.mark.slow
def test_faults_are_used_up_one_call_after_the_other(job: LaunchdJob) -> None:
    job.fault("bootstrap", 161, times=1, skip=1)
    codes = [job.launchctl("bootstrap", job.domain, str(job.plist)).returncode for _ in range(3)]
    assert codes == [37, 161, 37]


@pytest.mark.slow
def test_code_0_does_not_mean_that_it_runs(job: LaunchdJob) -> None:
    _boot_out(job)
    job.fault("bootstrap", outcome="penalty", for_s=4, times=1)
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 0
    assert job.launchctl("kickstart", job.target).returncode == 0
    assert "state = spawn scheduled" in job.launchctl("print", job.target).stdout
    poll(lambda: "state = running" in job.launchctl("print", job.target).stdout)
    _boot_out(job)
    job.fault("bootstrap", outcome="not_running", times=1)
    assert job.launchctl("bootstrap", job.domain, str(job.plist)).returncode == 0
    assert "state = not running" in job.launchctl("print", job.target).stdout
    assert job.launchctl("kickstart", job.target).returncode == 0
    assert "state = running" in job.launchctl("print", job.target).stdout


@pytest.mark.slow
def test_a_watchdog_and_a_reboot_bring_it_back(job: LaunchdJob) -> None:
    job.plan(revive_after_s=0.05, revivals=1)
    job.launchctl("bootout", job.target)
    poll(lambda: len(job.starts()) == 2)
    poll(job.serving)
    boot = (job.home.bin / "boot-id").read_text(encoding="utf-8")
    pid = job.pid()
    job.reboot()
    poll(job.serving)
    assert job.pid() != pid
    assert (job.home.bin / "boot-id").read_text(encoding="utf-8") != boot


def _boot_out(job: LaunchdJob) -> None:
    job.launchctl("bootout", job.target)
    poll(lambda: job.launchctl("print", job.target).returncode == 113)
