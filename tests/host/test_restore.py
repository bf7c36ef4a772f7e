"""The one algorithm that brings a live provider back, against a launchd of a few lines whose time we hold."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autotuned.core.lease import Event, Foreground, Job, Lease, State
from autotuned.host.managers import Managers
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Pace, Restorer
from autotuned.shared.identity import alive, boot_id, started
from autotuned.shared.launchctl import Answer, Launchd, LoadedJob, Presence
from tests.support.home import poll

QUICK = Pace(5, 0.01, 0.02, 0.005, 0.2, 0.3, 0.2, 0.05, 0.05, 5.0, lives_s=0.3)
MISSING = LoadedJob("gui/501", "l", Presence.MISSING)
IDLE = LoadedJob("gui/501", "l", state="not running")
DYING = LoadedJob("gui/501", "l", state="SIGTERMed", pid=os.getpid())
NEW = LoadedJob("gui/501", "l", state="running", pid=os.getpid())


class Scripted(Launchd):
    """Answers from a list of looks, the last of which repeats; every command gives the next of its codes."""

    def __init__(self, *looks: LoadedJob, codes: tuple[int | None, ...] = (0,)) -> None:
        super().__init__({})
        self.looks, self.codes = list(looks), list(codes)
        self.asked: list[str] = []
        self.then: Callable[[str], None] = lambda _: None

    def look(self, domain: str, label: str) -> LoadedJob:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def bootstrap(self, domain: str, plist: str) -> Answer:
        return self.answer("bootstrap")

    def kickstart(self, domain: str, label: str) -> Answer:
        return self.answer("kickstart")

    def answer(self, verb: str) -> Answer:
        self.asked.append(verb)
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code == 0:
            self.then(verb)
        return Answer(code, "", "did not answer in time" if code is None else "")


def comes_up(launchd: Scripted, state: LoadedJob = NEW) -> Scripted:
    """From the first command that succeeds on, this is what is seen."""

    def up(_: str) -> None:
        launchd.looks[:] = [state]

    launchd.then = up
    return launchd


def owed(
    folder: Path, state: State = State.DRAINED, *, pid: int | None = None, boot: str | None = None
) -> Lease:
    plist = folder / "l.plist"
    plist.write_text("", encoding="utf-8")
    target = Job(
        "l",
        "gui/501",
        str(plist),
        pid=pid,
        started=started(pid) if pid else None,
        exit_timeout_s=0.1,
    )
    lease = Lease("1", "r", state, target, 1, boot or boot_id(), "t", "t", 8080, 18080)
    Journal(folder).write(lease)
    return lease


def restore(folder: Path, launchd: Launchd, lease: Lease) -> Lease:
    restorer = Restorer(Journal(folder), Managers({}, launchd=launchd), QUICK)
    after = restorer.release(restorer.restore(lease))
    assert Journal(folder).read() == after
    return after


def test_a_job_that_is_not_loaded_is_bootstrapped_once(tmp_path: Path) -> None:
    launchd = comes_up(Scripted(MISSING))
    assert restore(tmp_path, launchd, owed(tmp_path)).state is State.RELEASED
    assert launchd.asked == ["bootstrap"]


def test_a_job_that_somebody_else_has_brought_back_is_left_alone(tmp_path: Path) -> None:
    launchd = Scripted(NEW)
    assert restore(tmp_path, launchd, owed(tmp_path)).state is State.RELEASED
    assert launchd.asked == []


def test_a_loaded_job_that_does_not_run_is_kickstarted(tmp_path: Path) -> None:
    launchd = comes_up(Scripted(IDLE))
    assert restore(tmp_path, launchd, owed(tmp_path)).state is State.RELEASED
    assert launchd.asked == ["kickstart"]


def test_the_old_process_is_waited_for_before_anything_is_asked(tmp_path: Path) -> None:
    launchd = comes_up(Scripted(DYING, DYING, DYING, MISSING))
    assert restore(tmp_path, launchd, owed(tmp_path, State.DRAINING)).state is State.RELEASED
    assert launchd.asked == ["bootstrap"]


def test_an_end_that_is_under_way_unseen_is_not_taken_for_a_restore(tmp_path: Path) -> None:
    """The journal says draining, the old process still runs: a bootout may just have been asked for."""
    another = LoadedJob("gui/501", "l", state="running", pid=os.getppid())
    launchd = comes_up(Scripted(NEW, NEW, NEW, MISSING, MISSING), another)
    lease = owed(tmp_path, State.DRAINING, pid=os.getpid())
    assert restore(tmp_path, launchd, lease).state is State.RELEASED
    assert launchd.asked == ["bootstrap"]


def test_before_anything_was_asked_what_runs_is_simply_there(tmp_path: Path) -> None:
    launchd = Scripted(NEW)
    lease = owed(tmp_path, State.INTENT, pid=os.getpid())
    assert restore(tmp_path, launchd, lease).state is State.RELEASED


@pytest.mark.parametrize("code", [5, 36, 112, 119, 125, 161, None])
def test_a_refusal_is_tried_again_and_told_when_it_lasts(tmp_path: Path, code: int | None) -> None:
    launchd = Scripted(MISSING, codes=(code,))
    after = restore(tmp_path, launchd, owed(tmp_path))
    assert after.state is State.FAILED
    assert after.open
    assert launchd.asked == ["bootstrap"] * QUICK.tries
    assert (str(code) if code else "in time") in (after.reason or "")


@pytest.mark.parametrize("code", [5, 36, None])
def test_a_refusal_that_passes_ends_in_a_restore(tmp_path: Path, code: int | None) -> None:
    launchd = comes_up(Scripted(MISSING, codes=(code, code, 0)))
    assert restore(tmp_path, launchd, owed(tmp_path)).state is State.RELEASED
    assert launchd.asked == ["bootstrap"] * 3


def test_already_loaded_counts_as_loaded(tmp_path: Path) -> None:
    launchd = Scripted(MISSING, NEW, codes=(37,))
    assert restore(tmp_path, launchd, owed(tmp_path)).state is State.RELEASED


def test_a_plist_that_is_gone_is_told_with_its_path(tmp_path: Path) -> None:
    lease = owed(tmp_path)
    (tmp_path / "l.plist").unlink()
    after = restore(tmp_path, Scripted(MISSING), lease)
    assert after.reason == f"its plist {tmp_path / 'l.plist'} is gone"


def test_after_a_reboot_what_launchd_has_loaded_itself_is_only_verified(tmp_path: Path) -> None:
    launchd = Scripted(MISSING, MISSING, NEW)
    assert restore(tmp_path, launchd, owed(tmp_path, boot="another")).state is State.RELEASED
    assert launchd.asked == []


def test_a_journal_that_cannot_be_written_stops_no_restore(tmp_path: Path) -> None:
    class Full(Journal):
        def advance(self, lease: Lease, event: Event, **changes: object) -> Lease:
            raise OSError(28, "no space left on device")

    launchd = comes_up(Scripted(MISSING))
    restorer = Restorer(Full(tmp_path), Managers({}, launchd=launchd), QUICK)
    assert restorer.release(restorer.restore(owed(tmp_path))).state is State.RELEASED
    assert launchd.asked == ["bootstrap"]


def by_hand(folder: Path, process: subprocess.Popen[bytes], **fields: object) -> Lease:
    told = {"argv": ("/bin/sleep", "60"), "cwd": str(folder), "environ": {"MARK": "yes"}}
    values = {**told, "restart": True, "log": str(folder / "log"), **fields}
    target = Foreground(process.pid, started(process.pid), **values)  # type: ignore[arg-type]
    return Lease("1", "r", State.DRAINED, target, 1, boot_id(), "t", "t", 8080, 18080)


def ended() -> subprocess.Popen[bytes]:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process


def test_a_foreground_process_is_started_once_as_it_was_and_forgotten(tmp_path: Path) -> None:
    lease = by_hand(tmp_path, ended())
    restorer = Restorer(Journal(tmp_path), Managers({}, launchd=Scripted(MISSING)), QUICK)
    after = restorer.restore(lease)
    assert isinstance(after.target, Foreground)
    pid = after.target.new_pid
    assert pid is not None
    try:
        process = psutil.Process(pid)
        poll(lambda: process.cmdline() == ["/bin/sleep", "60"])
        assert process.environ() == {"MARK": "yes"}
        assert os.getsid(pid) == pid
        again = restorer.restore(Journal(tmp_path).read() or after)
        assert isinstance(again.target, Foreground)
        assert again.target.new_pid == pid
        assert "MARK" not in json.dumps(str(restorer.release(again)))
    finally:
        os.kill(pid, 9)
    poll(lambda: not alive(pid))


def test_a_foreground_process_that_nobody_asked_to_restart_is_let_go(tmp_path: Path) -> None:
    after = restore(tmp_path, Scripted(MISSING), by_hand(tmp_path, ended(), restart=False))
    assert after.state is State.RELEASED
    assert "--restart-foreground" in (after.reason or "")


def test_one_that_never_ended_is_not_started_twice(tmp_path: Path) -> None:
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        after = restore(tmp_path, Scripted(MISSING), by_hand(tmp_path, process))
    finally:
        process.kill()
        process.wait()
    assert after.reason == "it has never ended"


def test_one_that_cannot_be_started_stays_owed_with_the_reason(tmp_path: Path) -> None:
    after = restore(
        tmp_path, Scripted(MISSING), by_hand(tmp_path, ended(), argv=("/no/such/program",))
    )
    assert after.state is State.FAILED
    assert "log" in (after.reason or "")
    assert "cannot be started again" in (tmp_path / "log").read_text(encoding="utf-8")


def test_one_whose_environment_is_unknown_is_not_started_as_something_else(tmp_path: Path) -> None:
    after = restore(tmp_path, Scripted(MISSING), by_hand(tmp_path, ended(), environ=None))
    assert after.state is State.FAILED
