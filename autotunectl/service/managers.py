"""The service managers, and the agent's job in them: launchd wherever there is a `launchctl`, else systemd.

Both sides answer the same few questions. Must not know the agent's socket, nor when a job may be changed.

Of launchctl exit codes are trusted before texts. `bootout` returns before the job is gone, and a `bootstrap` in that
moment fails with 5: only what `print` says counts. `disable` and `enable` are never used: what the
operator has switched off stays off until they switch it on.
"""

from __future__ import annotations

import html
import itertools
import os
import plistlib
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from autotunectl.errors import CommandError
from autotuned.shared import tools
from autotuned.shared.launchctl import (
    ALREADY,
    EXISTS,
    IO_ERROR,
    NO_SESSION,
    OK,
    Answer,
    Launchd,
    Presence,
    domains,
)

LABEL = "live.streamvc.autotuned"
GONE_S = 120.0
"""A job has its ExitTimeOut (90 s) to put things back, then launchd kills it."""
LOAD_S = 30.0
POLL_S = 0.1
PAUSES = (0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0)
GOES_ON = (OK, EXISTS, ALREADY)
LAUNCHD_REMEDIES = {
    1: "run it as the user whose agent this is, without sudo",
    119: "you, or a tool, have disabled it; allow it again with: launchctl enable {target}",
    122: "chmod 644 the file, and make its folder writable for its owner only",
    134: "log in at the screen once, or run it from a terminal there",
    155: "the file or the program is quarantined: xattr -d com.apple.quarantine FILE",
    161: "allow it under System Settings > General > Login Items & Extensions",
}
UNIT = "autotuned.service"
UNIT_STOP_S = 120.0
STARTED = ("active", "activating", "reloading", "deactivating")
NO_BUS = re.compile(
    r"connect to (?:the )?(?:user scope )?bus|No medium found|not been booted", re.IGNORECASE
)


class ServiceError(CommandError):
    """The service manager refused."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, 1, remedy)


@dataclass(frozen=True, slots=True)
class Job:
    """What a job file says: the program with its arguments, absolute, and the environment beyond HOME and LANG."""

    program: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A job that the manager knows: `where` (a launchd domain, or `user`), and its process, if one runs."""

    where: str
    pid: int | None


class Service(Protocol):
    """The agent's job: `kind` is launchd or systemd, `path` the job's file.

    `output` takes what the agent says outside its own log, where the manager keeps none itself.
    """

    kind: str
    path: Path
    output: Path | None = None

    def content(self, job: Job) -> bytes:
        """The job's file for this program. Raises ServiceError where it would not be valid."""

    def loaded(self) -> Loaded | None:
        """Where the job is loaded; None when it is not."""

    def load(self) -> Loaded:
        """Load the job's file and start it. Raises ServiceError."""

    def unload(self) -> bool:
        """Stop the job and wait until the manager has forgotten it; False when it was not loaded. Raises ServiceError."""

    def start(self) -> None:
        """Start an installed job that does not run, loaded or not. Raises ServiceError."""

    def forget(self) -> None:
        """Undo what stays with the manager after the file has gone."""


class LaunchdJob(Service):
    """`~/Library/LaunchAgents/live.streamvc.autotuned.plist` and the job that it describes."""

    kind = "launchd"
    output: Path

    def __init__(self, launchctl: str) -> None:
        self._launchd = Launchd(os.environ, launchctl)
        self.path = home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.output = home() / "Library" / "Logs" / "autotuned" / "launchd.log"

    def content(self, job: Job) -> bytes:
        text = template(self.path.name).decode()
        for word, folder in (("__HOME__", home()), ("__LOGS__", self.output.parent)):
            text = text.replace(f">{word}", f">{html.escape(str(folder))}")
        document = plistlib.loads(text.encode())
        document["ProgramArguments"] = list(job.program)
        document["EnvironmentVariables"] |= dict(job.environment)
        data = plistlib.dumps(document, sort_keys=False)
        if plutil := shutil.which("plutil"):
            self._lint(plutil, data)
        elif plistlib.loads(data) != document:
            message = f"{self.path.name} would not be a valid property list"
            raise ServiceError(message)
        return data

    def loaded(self) -> Loaded | None:
        for domain in domains():
            job = self._launchd.look(domain, LABEL)
            if job.presence is Presence.LOADED:
                return Loaded(domain, None if job.dying else job.pid)
        return None

    def load(self) -> Loaded:
        """Bootstrap the file into `gui`, or where there is no such session into `user`. Raises ServiceError."""
        domain = self._domain()
        deadline = time.monotonic() + LOAD_S
        for attempt in itertools.count():
            answer = self._launchd.bootstrap(domain, str(self.path))
            loaded = self.loaded()
            if loaded is not None and (answer.code in GOES_ON or loaded.pid is not None):
                return loaded
            # 5 is the answer to nearly everything, an old job that is still dying included
            if answer.code not in (*GOES_ON, IO_ERROR, None) or time.monotonic() > deadline:
                raise _refused(answer, domain)
            time.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        raise AssertionError

    def unload(self) -> bool:
        """Boot it out wherever it is loaded, and wait until it is gone. Raises ServiceError."""
        was = False
        deadline = time.monotonic() + GONE_S
        while (loaded := self.loaded()) is not None:
            answer = None
            if not was or loaded.pid is not None:
                answer = self._launchd.bootout(loaded.where, LABEL)
            was = True
            if time.monotonic() > deadline or (answer is not None and answer.code in (1, 64)):
                reason = answer.reason if answer is not None else "it does not end"
                message = f"{LABEL} is still loaded in {loaded.where}: {reason}"
                raise ServiceError(message, f"launchctl print {loaded.where}/{LABEL}")
            self._until_gone(loaded.where, min(deadline, time.monotonic() + 5.0))
        return was

    def start(self) -> None:
        loaded = self.loaded()
        if loaded is None:
            self.load()
        elif loaded.pid is None:
            answer = self._launchd.kickstart(loaded.where, LABEL)
            if answer.code not in GOES_ON:
                raise _refused(answer, loaded.where)

    def forget(self) -> None:
        """Nothing stays with launchd."""

    def _until_gone(self, domain: str, deadline: float) -> None:
        gone = (Presence.MISSING, Presence.NO_DOMAIN)
        while time.monotonic() < deadline:
            if self._launchd.look(domain, LABEL).presence in gone:
                return
            time.sleep(POLL_S)

    def _domain(self) -> str:
        """`gui` where there is such a session, else `user`, which always exists."""
        gui, user = domains()
        answer = self._launchd.session()
        if answer.code == 0:
            return gui
        if answer.code in NO_SESSION:
            return user
        message = f"launchctl does not tell whether {gui} exists: {answer.reason}"
        raise ServiceError(message, f"launchctl print {gui}")

    def _lint(self, plutil: str, data: bytes) -> None:
        import tempfile

        with tempfile.NamedTemporaryFile(suffix=".plist") as file:
            file.write(data)
            file.flush()
            answer = tools.run([plutil, "-lint", file.name])
        if answer.code != 0:
            message = f"plutil does not accept {self.path.name}: {answer.line}"
            raise ServiceError(message)


def _refused(answer: Answer, domain: str) -> ServiceError:
    code, target = answer.code, f"{domain}/{LABEL}"
    remedy = LAUNCHD_REMEDIES.get(code or 0, f"launchctl print {domain}; launchctl error {code}")
    message = f"launchctl cannot load {target}: {answer.reason}"
    return ServiceError(message, remedy.format(target=target))


class SystemdUnit(Service):
    """`~/.config/systemd/user/autotuned.service`."""

    kind = "systemd"

    def __init__(self, systemctl: str) -> None:
        self._systemctl = systemctl
        config = os.environ.get("XDG_CONFIG_HOME")
        self.path = (Path(config) if config else home() / ".config") / "systemd" / "user" / UNIT

    def content(self, job: Job) -> bytes:
        words = (*job.program, *job.environment.values())
        if any(ord(letter) < 32 for word in words for letter in word):
            message = "a path of the program or its environment holds a control character"
            raise ServiceError(message)
        program = " ".join(_quoted(word).replace("$", "$$") for word in job.program)
        environment = "\n".join(
            f"Environment={_quoted(f'{name}={value}')}" for name, value in job.environment.items()
        )
        text = template(UNIT).decode()
        head = "# The agent as a service of this user, written by `autotunectl install`.\n"
        text = head + text[text.index("[Unit]") :]
        return text.replace("__PROGRAM__", program).replace("__ENVIRONMENT__", environment).encode()

    def loaded(self) -> Loaded | None:
        answer = self._ask("show", UNIT, "--property=ActiveState,MainPID")
        facts = dict(line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
        if facts.get("ActiveState") not in STARTED:
            return None
        pid = facts.get("MainPID", "0")
        return Loaded("user", int(pid) if pid.isdigit() and int(pid) > 0 else None)

    def load(self) -> Loaded:
        """Read the units again, have this one started at each login, and start it. Raises ServiceError."""
        for words in (("daemon-reload",), ("enable", UNIT), ("start", UNIT)):
            self._must(*words)
        return self.loaded() or Loaded("user", None)

    def unload(self) -> bool:
        if self.loaded() is None:
            return False
        self._must("stop", UNIT, timeout_s=UNIT_STOP_S)
        deadline = time.monotonic() + UNIT_STOP_S
        while self.loaded() is not None:
            if time.monotonic() > deadline:
                message = f"{UNIT} is still running after {UNIT_STOP_S:g} s"
                raise ServiceError(message, f"systemctl --user status {UNIT}")
            time.sleep(0.1)
        return True

    def start(self) -> None:
        self._must("start", UNIT)

    def forget(self) -> None:
        """Not at login any more, and no trace of former failures."""
        self._ask("disable", UNIT)
        self._ask("daemon-reload")
        self._ask("reset-failed", UNIT)

    def _must(self, *words: str, timeout_s: float = 60.0) -> None:
        answer = self._ask(*words, timeout_s=timeout_s)
        if answer.code != 0:
            remedy = f"systemctl --user status {UNIT}; journalctl --user -u {UNIT}"
            if NO_BUS.search(answer.line):
                remedy = "there is no systemd session of this user here: log in directly (not by su), or run autotunectl daemon start"
            message = f"systemctl --user {' '.join(words)}: {answer.line}"
            raise ServiceError(message, remedy)

    def _ask(self, *words: str, timeout_s: float = 15.0) -> tools.Answer:
        return tools.run([self._systemctl, "--user", *words], timeout_s)


def _quoted(word: str) -> str:
    """One word of a unit: specifiers and quotes are escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def template(name: str) -> bytes:
    """A job's file as it is packed with the client."""
    packed = resources.files("autotunectl").joinpath("launchd", name)
    if packed.is_file():
        return packed.read_bytes()
    return (Path(__file__).parents[2] / "launchd" / name).read_bytes()


def home() -> Path:
    """The home whose agent this is."""
    return Path(os.environ.get("HOME") or Path.home())


def find() -> Service | None:
    """The service manager of this machine; None where there is none that we know."""
    if launchctl := shutil.which("launchctl"):
        return LaunchdJob(launchctl)
    systemctl = shutil.which("systemctl")
    return SystemdUnit(systemctl) if systemctl else None
