"""launchd, spoken to through `launchctl` wherever one is on the PATH: look, boot out, bootstrap, kickstart.

Exit codes are trusted before any text, and what counts is the state reached, not the code of the
command that asked for it. Every command has a time-out, no terminal and the C locale. Must not know
why anybody asks. Standard library only: the guardian uses it in an interpreter without packages.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from autotuned.shared import tools
from autotuned.shared.identity import alive, parent

LOOK_TIMEOUT_S = 5.0
ACT_TIMEOUT_S = 15.0

OK, NO_PROCESS, IO_ERROR, EXISTS, IN_PROGRESS, ALREADY = 0, 3, 5, 17, 36, 37
NO_DOMAIN, NOT_FOUND, DISABLED, NO_ACTION, SWITCHED_OFF = 112, 113, 119, 125, 161
NO_SESSION = (NO_DOMAIN, NO_ACTION)

MEANINGS: Mapping[int, str] = {
    1: "not permitted",
    IO_ERROR: "input/output error (already loaded, still dying, or a bad plist)",
    IN_PROGRESS: "operation now in progress",
    ALREADY: "operation already in progress",
    64: "launchctl did not understand the command",
    78: "the job could not be set up (its log file or working directory)",
    108: "bad path",
    109: "bad property list",
    NO_DOMAIN: "no such domain: nobody is logged in there",
    NOT_FOUND: "could not find the service",
    DISABLED: "the service is disabled; enable it with: launchctl enable",
    122: "the plist has the wrong owner or permissions",
    124: "the domain is shutting down",
    NO_ACTION: "the domain does not support this: nobody is logged in there",
    SWITCHED_OFF: "switched off under System Settings > General > Login Items",
}


COMING = ("spawn", "xpcproxy", "pended", "activating", "queued")
"""How the states begin in which a manager itself is about to start a service."""


class Presence(Enum):
    LOADED = "loaded"
    MISSING = "missing"
    NO_DOMAIN = "no domain"
    UNKNOWN = "unknown"
    """It did not answer, or with a code that says nothing."""


class Answer(tools.Answer):
    @property
    def reason(self) -> str:
        """One line for a person."""
        if self.code is None:
            return self.err
        return f"code {self.code}: {MEANINGS.get(self.code, self.line)}"


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """What a service manager says of one service: launchd of a label in a domain, systemd of a unit in a scope."""

    domain: str
    label: str
    presence: Presence = Presence.LOADED
    state: str | None = None
    pid: int | None = None
    program: str | None = None
    path: str | None = None
    """The plist or unit file that it was loaded from."""
    arguments: tuple[str, ...] = ()
    exit_timeout_s: float = 5.0
    runs: int | None = None
    """Grows with each start: how often launchd has started it since it was loaded, or when systemd last has."""
    reason: str = ""
    silent: bool = False
    """launchctl did not answer in time."""

    @property
    def target(self) -> str:
        """`domain/label`, as launchctl takes it."""
        return f"{self.domain}/{self.label}"

    @property
    def running(self) -> bool:
        """Loaded, with a process that is alive and not being ended."""
        if self.presence is not Presence.LOADED or self.dying:
            return False
        if self.pid is None:
            return self.state in (None, "running")  # loaded, and more is not to be had
        return self.state in (None, "running", "active") and alive(self.pid)

    @property
    def dying(self) -> bool:
        """Told to end, and not gone yet."""
        return (self.state or "").startswith(("SIGTERM", "SIGKILL", "deactivating"))

    @property
    def coming(self) -> bool:
        """About to be started by its manager, now or after a throttle."""
        return (self.state or "").startswith(COMING)


def domains() -> tuple[str, str]:
    """The two of this user: `gui`, which is there while they are logged in at the screen, and `user`."""
    uid = os.getuid()
    return f"gui/{uid}", f"user/{uid}"


class Launchd:
    def __init__(self, environ: Mapping[str, str], program: str | None = None) -> None:
        """`program`: a launchctl that was found before; it is looked for on the PATH where that is gone."""
        self.environ = environ
        self._known = program

    @property
    def program(self) -> str | None:
        """The launchctl in use, absolute; None where there is none."""
        if self._known and os.access(self._known, os.X_OK):
            return self._known
        found = shutil.which("launchctl", path=self.environ.get("PATH"))
        if found is None and sys.platform == "darwin" and os.access("/bin/launchctl", os.X_OK):
            return "/bin/launchctl"
        return found and os.path.abspath(found)  # noqa: PTH100 - pathlib costs start-up time

    def find(self, labels: Sequence[str]) -> LoadedJob | None:
        """The first of `labels` that is loaded, in `gui`, `user` or `system`; None when none is.

        Where launchctl does not answer, or says nothing that we know, a job with presence UNKNOWN: nobody
        may take that for none.
        """
        if self.program is None:
            return None
        unknown: LoadedJob | None = None
        for label in labels:
            for domain in (*domains(), "system"):
                job = self.look(domain, label)
                if job.presence is Presence.LOADED:
                    return job
                if job.presence is Presence.UNKNOWN and domain != "system":
                    unknown = unknown or job
                    if job.silent:
                        return unknown  # each further question would take its whole time-out, too
        return unknown

    def look(self, domain: str, label: str) -> LoadedJob:
        """What launchd says of `label` in `domain` now. Never raises."""
        answer = self._run("print", f"{domain}/{label}", timeout_s=LOOK_TIMEOUT_S)
        if answer.code == OK:
            return self._listed(parse(domain, label, answer.out))
        if answer.code == NOT_FOUND:
            return LoadedJob(domain, label, Presence.MISSING)
        presence = Presence.NO_DOMAIN if answer.code in NO_SESSION else Presence.UNKNOWN
        silent = answer.code is None
        return LoadedJob(domain, label, presence, reason=answer.reason, silent=silent)

    def holder(self, pid: int) -> LoadedJob | None:
        """The job whose process this is, or that has started it; None where none is.

        Applications (Terminal among them) are jobs, too: what runs in one was started by hand.
        """
        answer = self._run("list", timeout_s=LOOK_TIMEOUT_S)
        rows = re.findall(r"(\d+)\s+-?\d+\s+(\S+)", answer.out if answer.code == 0 else "")
        for label in (label for number, label in rows if int(number) in (pid, parent(pid))):
            if label.startswith("application."):
                continue
            for domain in domains():
                job = self.look(domain, label)
                if job.presence is Presence.LOADED:
                    return job
        return None

    def disabled(self, domain: str, labels: Sequence[str]) -> list[str]:
        """Those that an override keeps from being loaded; none where launchctl does not tell."""
        answer = self._run("print-disabled", domain, timeout_s=LOOK_TIMEOUT_S)
        listed = set(re.findall(r'"(.+?)"\s*=>\s*(?:disabled|true)\b', answer.out))
        return [label for label in labels if answer.code == 0 and label in listed]

    def session(self) -> Answer:
        """Whether there is a `gui` domain: 0, or one of `NO_SESSION`."""
        return self._run("print", domains()[0], timeout_s=LOOK_TIMEOUT_S)

    def _listed(self, job: LoadedJob) -> LoadedJob:
        """The process of a job whose dump cannot be read, from the older command's answer."""
        if job.state is not None or job.pid is not None:
            return job
        answer = self._run("list", job.label, timeout_s=LOOK_TIMEOUT_S)
        if answer.code != 0:
            return job
        found = re.search(r'"PID" = (\d{1,9});', answer.out)
        return replace(job, pid=int(found[1])) if found else replace(job, state="not running")

    def bootout(self, domain: str, label: str) -> Answer:
        """Ask for the job's end and removal; it returns before that has happened."""
        return self._run("bootout", f"{domain}/{label}")

    def bootstrap(self, domain: str, plist: str) -> Answer:
        """Load a job; 0 does not mean that it runs."""
        return self._run("bootstrap", domain, plist)

    def kickstart(self, domain: str, label: str) -> Answer:
        """Start a loaded job that is not running; never ends one that is."""
        return self._run("kickstart", f"{domain}/{label}")

    def _run(self, *arguments: str, timeout_s: float = ACT_TIMEOUT_S) -> Answer:
        program = self.program
        if program is None:
            return Answer(None, "", "there is no launchctl on the PATH")
        return Answer(*tools.run([program, *arguments], timeout_s, self.environ))


def parse(domain: str, label: str, text: str) -> LoadedJob:
    """Read the dump of `launchctl print`, which is no interface: whatever is missing or odd stays unknown."""
    fields: dict[str, tuple[int, str]] = {}
    arguments: list[str] = []
    blocks: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if line.endswith("{"):
            blocks.append(line[:-1].rstrip(" ="))
        elif line == "}":
            del blocks[-1:]
        elif blocks and blocks[-1] == "arguments":
            arguments.append(line)
        else:
            key, found, value = line.partition(" = ")
            depth = len(blocks)
            if found and (key not in fields or depth < fields[key][0]):
                fields[key] = depth, value.strip()
    known = {key: value for key, (_, value) in fields.items()}
    timeout = _number(known.get("exit timeout", ""))
    return LoadedJob(
        domain,
        label,
        state=known.get("state"),
        pid=_number(known.get("pid", "")),
        program=known.get("program"),
        path=known.get("path"),
        arguments=tuple(arguments),
        exit_timeout_s=5.0 if timeout is None else float(timeout),
        runs=int(known["runs"]) if known.get("runs", "").isdecimal() else None,
    )


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None
