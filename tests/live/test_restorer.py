"""The one algorithm that agent, guardian and operator restore with: every code, on the scripted launchctl."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest

from autotuned.core.lease import Job, Lease, State
from autotuned.host.managers import Managers
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Pace, Restorer
from autotuned.shared.identity import boot_id
from tests.support.home import Home, Y
from tests.support.live import LaunchdJob

PACE = Pace(first_s=0.05, longest_s=0.05, poll_s=0.02, verify_s=3.0, steady_s=0.1)


def owed(job: LaunchdJob, **changes: Any) -> tuple[Journal, Lease]:
    """A drained job, as the journal of a killed agent tells of it."""
    folder = job.home.path / ".config" / "macprovider" / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    target = Job(
        label=job.label,
        domain=job.domain,
        plist=str(job.plist),
        plist_sha256=hashlib.sha256(job.plist.read_bytes()).hexdigest(),
        program=job.argv[0],
    )
    fields: dict[str, Any] = {
        "lease_id": "lease",
        "run_id": "run",
        "state": State.DRAINED,
        "target": target,
        "holder_pid": os.getpid(),
        "boot_id": boot_id(job.home.environ),
        "taken_at": "2026-01-31T12:00:00.000Z",
        "updated_at": "2026-01-31T12:00:00.000Z",
        "port": job.port,
        "candidate_port": job.home.port,
        **changes,
    }
    lease = Lease(**fields)
    journal = Journal(folder)
    journal.write(lease)
    return journal, lease


def restored(job: LaunchdJob, **changes: Any) -> Lease:
    """The lease after one whole restore."""
    journal, lease = owed(job, **changes)
    restorer = Restorer(journal, Managers(job.home.environ), PACE)
    return restorer.release(restorer.restore(lease))


def absent(home: Home, **plan: Any) -> LaunchdJob:
    """A job that is not loaded."""
    home.provider({Y: {}})
    return LaunchdJob(home, start=False, **plan)


@pytest.mark.slow
def test_any_code_of_bootstrap_is_tried_again(home: Home) -> None:
    job = absent(home, exit_timeout_s=0.0)
    for code in (1, 3, 5, 17, 36, 37, 64, 107, 112, 113, 119, 122, 124, 125, 134, 161):
        before = len(job.calls("bootstrap"))
        job.fault("bootstrap", code, times=2)
        assert restored(job).state is State.RELEASED, code
        assert job.back(), code
        assert len(job.calls("bootstrap")) == before + 3, code
        job.launchctl("unload-everything")


@pytest.mark.slow
def test_a_bootstrap_that_did_its_work_is_not_repeated_whatever_it_says(home: Home) -> None:
    job = absent(home)
    for code in (5, 17, 37):
        before = len(job.calls("bootstrap"))
        job.fault("bootstrap", code, act=True, times=1)
        assert restored(job).state is State.RELEASED, code
        assert job.back(), code
        assert len(job.calls("bootstrap")) == before + 1, code
        job.launchctl("unload-everything")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["bootstrap", "print"])
def test_what_still_fails_is_owed_with_its_reason(home: Home, verb: str) -> None:
    job = absent(home)
    job.fault(verb, 161)
    lease = restored(job)
    assert lease.state is State.FAILED
    assert lease.reason is not None
    assert "161" in lease.reason
    job.mend()
    journal = Journal(home.path / ".config" / "macprovider" / "run")
    restorer = Restorer(journal, Managers(home.environ), PACE)
    assert restorer.release(restorer.restore(lease)).state is State.RELEASED
    assert job.back()


@pytest.mark.slow
def test_a_plist_that_is_gone_is_told(home: Home) -> None:
    job = absent(home)
    journal, lease = owed(job)
    job.plist.unlink()
    lease = Restorer(journal, Managers(home.environ), PACE).restore(lease)
    assert lease.state is State.FAILED
    assert str(job.plist) in str(lease.reason)


@pytest.mark.slow
def test_a_job_in_the_penalty_box_is_waited_for(home: Home) -> None:
    job = absent(home)
    job.fault("bootstrap", outcome="penalty", for_s=1.0)
    assert restored(job).state is State.RELEASED
    assert job.back()
    assert len(job.calls("bootstrap")) == 1


@pytest.mark.slow
def test_a_job_that_never_gets_a_process_is_owed(home: Home) -> None:
    job = absent(home)
    job.fault("bootstrap", outcome="not_running", for_ever=True)
    lease = restored(job)
    assert lease.state is State.FAILED
    assert "no live process" in str(lease.reason)


@pytest.mark.slow
def test_a_reboot_means_that_launchd_has_done_it(home: Home) -> None:
    home.provider({Y: {}})
    job = LaunchdJob(home)
    assert restored(job, boot_id="another boot").state is State.RELEASED
    assert job.calls("bootstrap") == []
    assert job.calls("kickstart") == []


@pytest.mark.slow
def test_after_a_reboot_into_which_nobody_has_logged_in_it_is_loaded(home: Home) -> None:
    job = absent(home, domain="user")  # launchd does not bring agents of this domain back
    assert restored(job, boot_id="another boot").state is State.RELEASED
    assert job.back()
