"""The agent's launchd job, through `launchctl`.

Exit codes are trusted before texts. `bootout` returns before the job is gone, and a `bootstrap` in that
moment fails with 5: only what `print` says counts. `disable` and `enable` are never used: what the
operator has switched off stays off until they switch it on.
"""

from __future__ import annotations

import html
import itertools
import os
import plistlib
import shutil
import time

from autotunectl.service import Job, Loaded, ServiceError, home, template
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
REMEDIES = {
    1: "run it as the user whose agent this is, without sudo",
    119: "you, or a tool, have disabled it; allow it again with: launchctl enable {target}",
    122: "chmod 644 the file, and make its folder writable for its owner only",
    134: "log in at the screen once, or run it from a terminal there",
    155: "the file or the program is quarantined: xattr -d com.apple.quarantine FILE",
    161: "allow it under System Settings > General > Login Items & Extensions",
}


class LaunchdJob:
    """`~/Library/LaunchAgents/live.streamvc.autotuned.plist` and the job that it describes."""

    kind = "launchd"

    def __init__(self, launchctl: str) -> None:
        self._launchd = Launchd(os.environ, launchctl)
        self.path = home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.output = home() / "Library" / "Logs" / "autotuned" / "launchd.log"

    def content(self, job: Job) -> bytes:
        """The filled in template, checked. Raises ServiceError."""
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
        """In `gui`, else in `user`; None when it is in neither."""
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
        """Kickstart it where it is loaded, else load it. Raises ServiceError."""
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
    remedy = REMEDIES.get(code or 0, f"launchctl print {domain}; launchctl error {code}")
    message = f"launchctl cannot load {target}: {answer.reason}"
    return ServiceError(message, remedy.format(target=target))
