"""The agent's launchd job, through `launchctl`.

Exit codes are trusted before texts. `bootout` returns before the job is gone, and a `bootstrap` in that
moment fails with 5: only what `print` says counts. `disable` and `enable` are never used: what the
operator has switched off stays off until they switch it on.
"""

from __future__ import annotations

import itertools
import os
import plistlib
import re
import shutil
import time
from typing import Any

from autotunectl.service import Job, Loaded, Said, ServiceError, ask, home, template

LABEL = "live.streamvc.autotuned"
NOT_LOADED, NO_DOMAIN = 113, (112, 125)
GONE_S = 120.0
"""A job has its ExitTimeOut (90 s) to put things back, then launchd kills it."""
LOAD_S = 30.0
POLL_S = 0.1
PAUSES = (0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0)
ALREADY = (17, 37)
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
        self._launchctl = launchctl
        self._domains = tuple(f"{name}/{os.getuid()}" for name in ("gui", "user"))
        self.path = home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self.output = home() / "Library" / "Logs" / "autotuned" / "launchd.log"

    def content(self, job: Job) -> bytes:
        """The filled in template, checked. Raises ServiceError."""
        words = {"__HOME__": str(home()), "__LOGS__": str(self.output.parent)}
        document = _filled(plistlib.loads(template(self.path.name)), words)
        document["ProgramArguments"] = list(job.program)
        document["EnvironmentVariables"] |= dict(job.environment)
        data = plistlib.dumps(document, sort_keys=False)
        plutil = shutil.which("plutil")
        if plutil:
            self._lint(plutil, data)
        elif plistlib.loads(data) != document:
            message = f"{self.path.name} would not be a valid property list"
            raise ServiceError(message)
        return data

    def loaded(self) -> Loaded | None:
        """In `gui`, else in `user`; None when it is in neither."""
        for domain in self._domains:
            said = self._ask("print", f"{domain}/{LABEL}")
            if said.code == 0:
                return Loaded(domain, _pid(said.out))
        return None

    def load(self) -> Loaded:
        """Bootstrap the file into `gui`, or where there is no such session into `user`. Raises ServiceError."""
        domain = self._domain()
        deadline = time.monotonic() + LOAD_S
        for attempt in itertools.count():
            said = self._ask("bootstrap", domain, str(self.path))
            found = self.loaded()
            if found is not None and (said.code in (0, *ALREADY) or found.pid is not None):
                return found
            # 5 is said of nearly everything, an old job that is still dying included
            if said.code not in (0, 5, -1, *ALREADY) or time.monotonic() > deadline:
                raise self._refused(said, domain)
            time.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
        raise AssertionError

    def unload(self) -> bool:
        """Boot it out wherever it is loaded, and wait until it is gone. Raises ServiceError."""
        was = False
        deadline = time.monotonic() + GONE_S
        while (found := self.loaded()) is not None:
            said = Said(0, "", "")
            if not was or found.pid is not None:
                said = self._ask("bootout", f"{found.where}/{LABEL}")
            was = True
            if time.monotonic() > deadline or said.code in (1, 64):
                message = f"{LABEL} is still loaded in {found.where}: {said.words}"
                raise ServiceError(message, f"launchctl print {found.where}/{LABEL}")
            self._until_gone(found.where, min(deadline, time.monotonic() + 5.0))
        return was

    def start(self) -> None:
        """Kickstart it where it is loaded, else load it. Raises ServiceError."""
        found = self.loaded()
        if found is None:
            self.load()
        elif found.pid is None:
            said = self._ask("kickstart", f"{found.where}/{LABEL}")
            if said.code not in (0, *ALREADY):
                raise self._refused(said, found.where)

    def forget(self) -> None:
        """Nothing stays with launchd."""

    def _until_gone(self, domain: str, deadline: float) -> None:
        while time.monotonic() < deadline:
            if self._ask("print", f"{domain}/{LABEL}").code in (NOT_LOADED, *NO_DOMAIN):
                return
            time.sleep(POLL_S)

    def _domain(self) -> str:
        """`gui` where there is such a session, else `user`, which always exists."""
        gui, user = self._domains
        said = self._ask("print", gui)
        if said.code == 0:
            return gui
        if said.code in NO_DOMAIN:
            return user
        message = f"launchctl does not tell whether {gui} exists: {said.words}"
        raise ServiceError(message, f"launchctl print {gui}")

    def _lint(self, plutil: str, data: bytes) -> None:
        import tempfile

        with tempfile.NamedTemporaryFile(suffix=".plist") as file:
            file.write(data)
            file.flush()
            said = ask([plutil, "-lint", file.name])
        if said.code != 0:
            message = f"plutil does not accept {self.path.name}: {said.words}"
            raise ServiceError(message)

    def _ask(self, *words: str) -> Said:
        return ask([self._launchctl, *words])

    def _refused(self, said: Said, domain: str) -> ServiceError:
        remedy = REMEDIES.get(said.code, f"launchctl print {domain}; launchctl error {said.code}")
        target = f"{domain}/{LABEL}"
        return ServiceError(
            f"launchctl cannot load {target}: {said.words}", remedy.format(target=target)
        )


def _filled(value: Any, words: dict[str, str]) -> Any:
    """The template with its words replaced, however deep."""
    if isinstance(value, dict):
        return {key: _filled(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    if isinstance(value, str):
        for word, meaning in words.items():
            value = value.replace(word, meaning)
    return value


def _pid(text: str) -> int | None:
    """The job's process as `print` names it; None for one that is being ended, and where the text says nothing."""
    if re.search(r"^\s*state = SIG", text, re.MULTILINE):
        return None
    found = re.search(r"^\s*pid = (\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None
