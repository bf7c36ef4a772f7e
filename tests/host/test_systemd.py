"""What systemd may answer, and what becomes of it: against a systemctl whose answers and time we hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from autotuned import settings
from autotuned.core.lease import Lease, State, Unit
from autotuned.core.request import TuneRequest
from autotuned.engine.live.preflight import conflict, undrainable
from autotuned.errors import SettingsError
from autotuned.host import find
from autotuned.host.find import Finder, Found, Process
from autotuned.host.managers import Managers, systemd
from autotuned.host.managers.stopping import Stopper
from autotuned.host.managers.systemd import Place, Systemd, UnitState, parse_place, seconds
from autotuned.host.ports import Ports
from autotuned.host.restore.journal import Journal
from autotuned.host.restore.restorer import Pace, Restorer
from autotuned.shared.identity import boot_id
from autotuned.shared.launchctl import Answer, Presence
from tests.support.home import free_port

QUICK = Pace(3, 0.01, 0.02, 0.005, 0.2, 0.3, 0.2, 0.05, 0.05, 5.0, lives_s=0.1)
UNIT = "llama.service"
NO_BUS = Answer(1, "Failed to connect to bus: No medium found\n", "")
SILENT = Answer(None, "systemctl show did not answer in time (5 s)", "")


def shown(**facts: object) -> Answer:
    """What `systemctl show` prints."""
    usual = {"LoadState": "loaded", "ActiveState": "inactive", "MainPID": 0, "ControlGroup": ""}
    return Answer(0, "".join(f"{key}={value}\n" for key, value in {**usual, **facts}.items()), "")


ACTIVE = shown(ActiveState="active", MainPID=os.getpid(), ExecMainStartTimestampMonotonic=7)
IDLE = shown()


class Scripted(Systemd):
    """Answers a look from a list, the last of which repeats; what it was asked is kept."""

    def __init__(self, *looks: Answer, **answers: Answer) -> None:
        super().__init__({})
        self.looks, self.answers, self.asked = list(looks), answers, list[str]()

    def ask(self, scope: str, *words: str, timeout_s: float = 1.0) -> Answer:
        if words[0] == "show":
            if scope == "system" and "system" not in self.answers:
                return NO_BUS
            return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        self.asked.append(" ".join(words))
        answer = self.answers.get(words[0].replace("-", "_"), Answer(0, "", ""))
        if words[0] == "start" and answer.code == 0:
            self.looks = [ACTIVE]
        if words[0] == "stop" and answer.code == 0:
            self.looks = [IDLE]
        return answer


def managers(scripted: Systemd) -> Managers:
    made = Managers({"PATH": "/nowhere"})
    made.systemd = scripted
    return made


def lease(folder: Path, state: State = State.DRAINED) -> Lease:
    target = Unit(UNIT, "user", exit_timeout_s=0.1)
    made = Lease("1", "r", state, target, 1, boot_id(), "t", "t", free_port(), free_port())
    Journal(folder).write(made)
    return made


def restored(folder: Path, scripted: Systemd, state: State = State.DRAINED) -> Lease:
    restorer = Restorer(Journal(folder), managers(scripted), QUICK)
    after = restorer.release(restorer.restore(lease(folder, state)))
    assert Journal(folder).read() == after
    return after


def test_a_start_forgets_earlier_failures_first_so_that_no_limit_stands_in_its_way(
    tmp_path: Path,
) -> None:
    limit = shown(ActiveState="failed", Result="start-limit-hit")
    scripted = Scripted(limit)
    assert restored(tmp_path, scripted).state is State.RELEASED
    assert scripted.asked == [f"reset-failed {UNIT}", f"start --no-block {UNIT}"]


def test_what_runs_already_is_left_alone_and_what_is_about_to_end_is_waited_for(
    tmp_path: Path,
) -> None:
    scripted = Scripted(ACTIVE)
    assert restored(tmp_path, scripted).state is State.RELEASED
    assert scripted.asked == []
    ending = shown(ActiveState="deactivating", MainPID=os.getpid())
    scripted = Scripted(ending, ending, ending, IDLE)
    assert restored(tmp_path, scripted, State.DRAINING).state is State.RELEASED
    assert scripted.asked[-1] == f"start --no-block {UNIT}"


def test_a_unit_whose_files_have_changed_is_read_again_before_it_is_started(tmp_path: Path) -> None:
    for look in (shown(NeedDaemonReload="yes"), shown(LoadState="not-found")):
        scripted = Scripted(look)
        assert restored(tmp_path, scripted).state is State.RELEASED
        assert scripted.asked[0] == "daemon-reload"


@pytest.mark.parametrize(
    ("look", "start", "why"),
    [
        (
            IDLE,
            Answer(1, "Failed to start llama.service: Unit llama.service is masked.", ""),
            "unmask",
        ),
        (shown(LoadState="not-found"), Answer(5, "Unit llama.service not found.", ""), "not found"),
        (NO_BUS, NO_BUS, "No medium found"),
        (SILENT, Answer(None, "systemctl start did not answer in time", ""), "in time"),
        (shown(Job="12"), Answer(1, "queued", ""), "queued"),
    ],
    ids=["masked", "not found", "no bus", "hangs", "queued"],
)
def test_a_start_that_is_refused_is_told_and_owed_until_it_succeeds(
    tmp_path: Path, look: Answer, start: Answer, why: str
) -> None:
    after = restored(tmp_path, Scripted(look, start=start))
    assert after.state is State.FAILED
    assert why in str(after.reason)
    restorer = Restorer(Journal(tmp_path), managers(Scripted(IDLE)), QUICK)
    assert restorer.restore(after).state is State.LIVING


def test_one_that_ends_at_once_again_and_again_is_told_with_its_log(tmp_path: Path) -> None:
    """`Restart=always` has it in `auto-restart` when it is looked at."""

    class Dies(Scripted):
        def ask(self, scope: str, *words: str, timeout_s: float = 1.0) -> Answer:
            answer = super().ask(scope, *words, timeout_s=timeout_s)
            if words[0] == "start":
                again = 8 + len(self.asked)
                dead = {"ActiveState": "activating", "SubState": "auto-restart"}
                self.looks = [shown(**dead, ExecMainStartTimestampMonotonic=again)]
            return answer

    after = restored(tmp_path, Dies(IDLE))
    assert after.state is State.FAILED
    assert "journalctl --user -u llama.service" in str(after.reason)


@pytest.mark.parametrize(
    ("looks", "stop", "why"),
    [
        ([ACTIVE], Answer(0, "", ""), None),
        ([IDLE], Answer(5, "Unit llama.service not loaded.", ""), None),
        ([ACTIVE], Answer(1, "Access denied", ""), "Access denied"),
        ([ACTIVE], Answer(None, "hangs", ""), "still loaded (state: active) after the drain grace"),
        ([SILENT], Answer(None, "hangs", ""), "still loaded"),
    ],
    ids=["stops", "is gone", "denied", "hangs", "does not answer"],
)
def test_a_stop_is_judged_by_what_is_reached(
    tmp_path: Path, looks: list[Answer], stop: Answer, why: str | None
) -> None:
    scripted = Scripted(*looks, stop=stop)
    stopper = Stopper(Journal(tmp_path), managers(scripted), Ports())
    after, reason = stopper.stop(lease(tmp_path, State.INTENT), 0.3, lambda: False)
    assert (reason is None) == (why is None)
    assert why is None or why in str(reason)
    assert after.state is (State.DRAINED if why is None else State.DRAINING)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/user.slice/user-7.slice/user@7.service/app.slice/a.service", ("a.service", 7, None)),
        ("/user.slice/user-7.slice/user@7.service/app.slice/a.service/x", ("a.service", 7, None)),
        ("/user.slice/user-7.slice/user@7.service/app.slice/vte-1.scope", (None, 7, None)),
        ("/user.slice/user-7.slice/user@7.service/init.scope", (None, 7, None)),
        ("/user.slice/user-7.slice/session-2.scope", (None, None, None)),
        ("/system.slice/llama.service", ("llama.service", None, None)),
        ("/system.slice/system-vllm.slice/vllm@big.service", ("vllm@big.service", None, None)),
        ("/system.slice/docker-0123456789abcdef.scope", (None, None, "0123456789abcdef.scope")),
        ("/docker/0123456789abcdef", (None, None, "0123456789abcdef")),
        (
            "/user.slice/user-7.slice/user@7.service/user.slice/libpod-0123.scope/container",
            (None, 7, "0123.scope"),
        ),
        ("/kubepods/besteffort/pod1/x", (None, None, "kubepods")),
        ("/", (None, None, None)),
    ],
)
def test_a_cgroup_tells_unit_user_and_container(path: str, place: tuple[Any, ...]) -> None:
    assert parse_place(path) == Place(path, *place)


def test_spans_of_time_are_read_as_systemd_prints_them() -> None:
    assert [seconds(span) for span in ("1min 30s", "5s", "2h", "500ms", "infinity", "")] == [
        90.0,
        5.0,
        7200.0,
        0.5,
        90.0,
        90.0,
    ]


def held(monkeypatch: pytest.MonkeyPatch, scripted: Systemd, path: str, **live: Any) -> Found:
    """What is found of a server in this cgroup; we run in another one."""
    ours = live.pop("ours", "/user.slice/user-7.slice/session-2.scope")

    def place(pid: int) -> Place:
        return parse_place(ours if pid == os.getpid() else path)

    monkeypatch.setattr(systemd, "place", place)
    monkeypatch.setattr(find, "place", place)
    monkeypatch.setattr(os, "getuid", lambda: 7)
    chosen = settings.load({"HOME": "/nowhere"})
    chosen = chosen.model_copy(update={"live": settings.LiveSettings(**live.pop("settings", {}))})
    finder = Finder(managers(scripted), Ports(), lambda: chosen, "AUTOTUNED_TEST")
    process = Process(os.getppid(), ("/usr/bin/llama-server", "--port", "81"), 81, **live)
    monkeypatch.setattr(Finder, "_serving", lambda *_: iter([process]))
    return finder.look([("llama-server",)], 0)


USERS = "/user.slice/user-7.slice/user@7.service/app.slice/llama.service"
SYSTEMS = "/system.slice/llama.service"


def refusal(found: Found) -> str:
    """Why a drain is refused; the unit is named."""
    reason = undrainable(found)
    assert reason is not None
    told = conflict(found, TuneRequest(drain=True))
    assert told is not None
    assert UNIT in told.message
    return told.message


def running(cgroup: str, **facts: object) -> Answer:
    live = {"ActiveState": "active", "MainPID": os.getppid(), "ControlGroup": cgroup}
    return shown(**live | facts)


def test_a_unit_of_the_user_is_found_by_its_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    found = held(monkeypatch, Scripted(running(USERS)), USERS)
    assert found.names == [f"systemd-managed (user unit {UNIT})"]
    assert undrainable(found) is None
    assert found.live is not None
    assert found.live.port == 81


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"LoadState": "masked"}, "systemctl --user unmask llama.service"),
        ({"LoadState": "not-found"}, "not-found"),
        ({"Transient": "yes"}, "has no unit file"),
        ({"MainPID": 0}, "main process"),
    ],
)
def test_a_unit_that_could_not_be_started_again_is_refused_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, object], why: str
) -> None:
    scripted = Scripted(running(USERS, **facts))
    assert why in refusal(held(monkeypatch, scripted, USERS))


def test_a_unit_of_the_system_is_refused_with_the_command_before_anything_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = Scripted(running(SYSTEMS), system=IDLE)
    found = held(monkeypatch, scripted, SYSTEMS, uid=9)
    assert "sudo systemctl stop llama.service" in refusal(found)
    assert scripted.asked == []


@pytest.mark.parametrize("look", [NO_BUS, SILENT])
def test_a_unit_about_which_systemd_cannot_be_asked_is_never_taken_for_a_process_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, look: Answer
) -> None:
    assert "cannot be asked" in refusal(held(monkeypatch, Scripted(look), USERS))


def test_our_own_unit_and_one_that_merely_holds_a_terminal_manage_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = held(monkeypatch, Scripted(running(USERS)), USERS, ours=USERS)
    assert found.managed is None
    monkeypatch.setattr(os, "getsid", lambda pid: pid)
    cron = shown(ActiveState="active", MainPID=os.getppid() + 1, ControlGroup=SYSTEMS)
    found = held(monkeypatch, Scripted(cron, system=IDLE), SYSTEMS)
    assert found.names == [f"foreground-PID-{os.getppid()}"]


def test_servers_of_another_user_and_of_a_container_are_told_and_never_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = Scripted(NO_BUS)
    others = USERS.replace("user@7", "user@9")
    told = refusal(held(monkeypatch, scripted, others, uid=9))
    assert f"of user {systemd.owner(9)} in {UNIT}" in told
    found = held(monkeypatch, scripted, "/docker/0123456789abcdef")
    assert "in the container 0123456789ab" in str(undrainable(found))
    assert scripted.asked == []


def test_a_service_that_the_settings_do_not_name_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for named in ("none", "launchd:some.label"):
        found = held(monkeypatch, Scripted(running(USERS)), USERS, settings={"service": named})
        assert "[live] service" in refusal(found)
    found = held(monkeypatch, Scripted(running("/x")), "/", settings={"service": "systemd:llama"})
    assert found.names == [f"systemd-managed (user unit {UNIT})"]
    assert undrainable(found) is None


def test_a_service_of_another_kind_is_refused_by_the_settings(tmp_path: Path) -> None:
    folder = tmp_path / ".config" / "macprovider"
    folder.mkdir(parents=True)
    (folder / "autotuned.toml").write_text('[live]\nservice = "docker:x"\n')
    with pytest.raises(SettingsError, match=r"live\.service"):
        settings.load({"HOME": str(tmp_path)})


def test_a_systemctl_that_hangs_or_is_not_there_is_an_answer_after_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "systemctl"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(systemd, "LOOK_TIMEOUT_S", 0.2)
    state = Systemd({"PATH": f"{tmp_path}:{os.defpath}"}).show("user", UNIT)
    assert isinstance(state, UnitState)
    assert (state.presence, state.silent) == (Presence.UNKNOWN, True)
