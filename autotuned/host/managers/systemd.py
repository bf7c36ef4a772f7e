"""systemd, the user's own manager or the machine's, spoken to through `systemctl`: find, look, stop, start.

What counts is the state reached, not the code of the command that asked for it. Nothing waits for a
job of systemd: it is asked for, and its state is looked at. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.lease import Unit
from autotuned.shared import tools
from autotuned.shared.launchctl import ACT_TIMEOUT_S, LOOK_TIMEOUT_S, LoadedJob, Presence
from autotuned.shared.redaction import shown
from autotuned.shared.tools import Answer

OK = 0
HIDDEN_STOP_S = 1.0
"""A stop is seen at once, but for the moment that it takes on its way."""
PROPERTIES = (
    "LoadState,ActiveState,SubState,MainPID,ExecMainStartTimestampMonotonic,ControlGroup,"
    "FragmentPath,DropInPaths,Transient,NeedDaemonReload,Job,TimeoutStopUSec"
)
ENDED = ("inactive", "failed")
NO_BUS = re.compile(
    r"connect to (?:the )?(?:user scope )?bus|No medium found|not been booted", re.IGNORECASE
)
CONTAINER = re.compile(
    r"/(?:docker|libpod|crio|cri-containerd|lxc(?:\.payload)?|buildkit|nspawn)[-./]([\w.-]+)|/(kubepods)"
)
AUTHORISED = ("pkcheck", "--action-id", "org.freedesktop.systemd1.manage-units", "--process")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs, by its cgroup: in a unit of the user `uid` (None: of the machine), in a container."""

    path: str
    unit: str | None = None
    uid: int | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True)
class UnitState(LoadedJob):
    """What systemd says of a unit; `domain` is its scope, `user` or `system`, `label` its name."""

    load: str = "loaded"
    cgroup: str = ""
    transient: bool = False
    outdated: bool = False
    """Its files have changed since systemd has read them."""
    drop_ins: tuple[str, ...] = ()
    """The files that add to its own, in the order in which they are read."""

    @property
    def alive(self) -> bool:
        """It runs, or is about to, or is ending."""
        return self.running or self.coming or self.dying


def command(scope: str) -> str:
    """What acts on the units of a scope, for a person to type."""
    return "systemctl --user" if scope == "user" else "sudo systemctl"


class Systemd:
    def __init__(self, environ: Mapping[str, str]) -> None:
        runtime = f"/run/user/{os.getuid()}"
        self._environ = {"XDG_RUNTIME_DIR": runtime} if Path(runtime).is_dir() else {}
        self._environ |= {**environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}

    @property
    def program(self) -> str | None:
        """The systemctl in use; None where there is none."""
        found = shutil.which("systemctl", path=self._environ.get("PATH"))
        return found or shutil.which("systemctl", path=tools.SYSTEM_FOLDERS)

    def holder(self, pid: int) -> UnitState | None:
        """The service whose server this process is: its main process, or one that this has started itself.

        One that has a session of its own was started from a terminal, whatever service that belongs to
        (cron, sshd, an old desktop). The service in which we run ourselves holds nobody.
        """
        where, ours = place(pid), place(os.getpid())
        if where is None or where.unit is None or (ours is not None and where.unit == ours.unit):
            return None
        if where.uid not in (None, os.getuid()) or where.container is not None:
            return None
        unknown: UnitState | None = None
        for scope in ("user",) if where.uid is not None else ("system", "user"):
            state = self.show(scope, where.unit)
            if state.presence in (Presence.UNKNOWN, Presence.NO_DOMAIN):
                unknown = state
            elif state.cgroup and f"{where.path}/".startswith(f"{state.cgroup}/"):
                main = state.pid
                known = main is None or _session(main) in (None, _session(pid))
                return state if known else None
        return unknown  # nobody may take that for none

    def find(self, unit: str) -> UnitState | None:
        """The unit of that name, the user's own first; None where there is none, or nobody knows."""
        silent = None
        for scope in ("user", "system"):
            state = self.show(scope, unit)
            if state.presence is Presence.LOADED:
                return state
            silent = silent or (state if state.presence is Presence.UNKNOWN else None)
        return silent

    def show(self, scope: str, unit: str) -> UnitState:
        """What systemd says of a unit now. Never raises."""
        answer = self.ask(scope, "show", unit, f"--property={PROPERTIES}", timeout_s=LOOK_TIMEOUT_S)
        if answer.code != OK:
            presence = Presence.NO_DOMAIN if NO_BUS.search(answer.line) else Presence.UNKNOWN
            silent = answer.code is None
            return UnitState(scope, unit, presence, reason=answer.line, silent=silent)
        facts = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
        return _state(scope, unit, facts)

    def ask(self, scope: str, *words: str, timeout_s: float = ACT_TIMEOUT_S) -> Answer:
        program = self.program
        if program is None:
            return Answer(None, "", "there is no systemctl on the PATH")
        user = ["--user"] if scope == "user" else []
        line = [program, *user, "--no-ask-password", "--no-pager", *words]
        return tools.run(line, timeout_s, self._environ, f"systemctl {words[0]}")

    def may_stop(self, scope: str) -> bool:
        """Whether units of this scope are ours to stop: our own, or by root's or polkit's leave."""
        if scope == "user" or os.getuid() == 0:
            return True
        pkcheck = shutil.which(AUTHORISED[0], path=self._environ.get("PATH"))
        if pkcheck is None:
            return False
        words = [pkcheck, *AUTHORISED[1:], str(os.getpid())]
        return tools.run(words, LOOK_TIMEOUT_S, self._environ).code == OK

    def refusal(self, state: UnitState) -> str | None:
        """Why this unit cannot be stopped for a run and brought back; None where it can."""
        unit, typed = state.label, command(state.domain)
        if state.presence is not Presence.LOADED:
            return (
                f"systemd cannot be asked about {unit}: {state.reason or 'there is no such unit'}"
            )
        if state.load == "masked":
            return f"{unit} is masked, so it could not be started again: {typed} unmask {unit}"
        if state.load != "loaded" or state.transient:
            why = "has no unit file" if state.transient else f"is {state.load}"
            return f"{unit} {why}, so it could not be started again: {typed} stop {unit}"
        if state.pid is None and state.state == "active":
            return f"systemd does not know the main process of {unit}: {typed} stop {unit}"
        if not self.may_stop(state.domain):
            return f"{unit} is a unit of the system, which needs root: {typed} stop {unit}"
        return None


class SystemdService:
    """One unit, see `ServiceManager`."""

    hidden_stop_s = HIDDEN_STOP_S

    def __init__(self, systemd: Systemd, unit: Unit) -> None:
        self._systemd, self._unit = systemd, unit

    def look(self) -> UnitState:
        return self._systemd.show(self._unit.scope, self._unit.unit)

    def stop(self) -> str | None:
        answer = self._ask("stop", "--no-block")
        if answer.code in (OK, None) or self.gone(self.look()):
            return None
        return f"{self._unit.unit} cannot be stopped: {self._refused('stop', answer)}"

    def gone(self, now: LoadedJob) -> bool:
        return now.presence is Presence.MISSING or now.state in ENDED

    def start(self, now: LoadedJob, *, rebooted: bool) -> str | None:  # noqa: ARG002 - launchd's
        missing = now.presence is Presence.MISSING
        if missing or (isinstance(now, UnitState) and now.outdated):
            self._systemd.ask(self._unit.scope, "daemon-reload")
        # One that was started too often counts as failed, and is not started before that is forgotten.
        self._ask("reset-failed")
        answer = self._ask("start", "--no-block")
        return None if answer.code == OK else self._refused("start", answer)

    def last_line(self) -> str:
        user = ["--user"] if self._unit.scope == "user" else []
        where = " ".join(["journalctl", *user, "-u", self._unit.unit])
        line = tools.ask("journalctl", *user, "-q", "-o", "cat", "-n", "1", "-u", self._unit.unit)
        return f"{shown(line) or 'its journal shows no line'} (its log: {where})"

    def _ask(self, *words: str) -> Answer:
        return self._systemd.ask(self._unit.scope, *words, self._unit.unit)

    def _refused(self, verb: str, answer: Answer) -> str:
        typed = command(self._unit.scope)
        remedy = f"; {typed} unmask {self._unit.unit}" if "masked" in answer.line else ""
        return f"{typed} {verb} {self._unit.unit}: {answer.line}{remedy}"


def place(pid: int) -> Place | None:
    """Where a process runs; None where that cannot be read, as on a system without cgroups."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    named = [line.partition("name=systemd:")[2] for line in lines if ":name=systemd:" in line]
    unified = [line[3:] for line in lines if line.startswith("0::")]
    path = next((path for path in [*named, *unified] if path), None)
    return None if path is None else parse_place(path)


def parse_place(path: str) -> Place:
    container = CONTAINER.search(path)
    user, unit = None, None
    for word in path.split("/"):
        named = re.fullmatch(r"user@(\d+)\.service", word)
        if named is not None:
            user, unit = int(named[1]), None
        elif word.endswith(".service"):
            unit = word.removeprefix("_")  # set before a name that the kernel would not take
        elif word.endswith(".scope"):
            unit = None
    return Place(path, unit, user, (container[1] or container[2]) if container else None)


def owner(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _state(scope: str, unit: str, facts: Mapping[str, str]) -> UnitState:
    load, active = facts.get("LoadState", "loaded"), facts.get("ActiveState", "")
    pid = int(facts["MainPID"]) if facts.get("MainPID", "").isdecimal() else 0
    begun = facts.get("ExecMainStartTimestampMonotonic", "")
    if active in ENDED and facts.get("Job"):
        active = "queued"
    elif active in ("reloading", "refreshing") or (active == "activating" and pid):
        active = "active"  # it may serve long before it says that it is ready
    missing = load == "not-found" and active in ENDED
    return UnitState(
        scope,
        unit,
        Presence.MISSING if missing else Presence.LOADED,
        state=active or None,
        pid=pid or None,
        path=facts.get("FragmentPath") or None,
        exit_timeout_s=seconds(facts.get("TimeoutStopUSec", "")),
        runs=int(begun) if begun.isdecimal() else None,
        load=load,
        cgroup=facts.get("ControlGroup", ""),
        transient=facts.get("Transient") == "yes",
        drop_ins=tuple(facts.get("DropInPaths", "").split()),
        outdated=facts.get("NeedDaemonReload") == "yes",
    )


def seconds(span: str) -> float:
    """A span of time as systemd prints it, `1min 30s`; its usual one where it says nothing or `infinity`."""
    units = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6}
    parts = re.findall(r"([\d.]+)(h|min|s|ms|us)\b", span)
    return sum(float(number) * units[unit] for number, unit in parts) or 90.0
