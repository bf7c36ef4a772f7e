"""The agent as a `systemd --user` unit, through `systemctl`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from autotunectl.service import Job, Loaded, ServiceError, home, template
from autotuned.shared import tools

UNIT = "autotuned.service"
STOP_S = 120.0
STARTED = ("active", "activating", "reloading", "deactivating")
NO_BUS = re.compile(
    r"connect to (?:the )?(?:user scope )?bus|No medium found|not been booted", re.IGNORECASE
)


class SystemdUnit:
    """`~/.config/systemd/user/autotuned.service`."""

    kind = "systemd"

    def __init__(self, systemctl: str) -> None:
        self._systemctl = systemctl
        config = os.environ.get("XDG_CONFIG_HOME")
        self.output = None  # the journal
        self.path = (Path(config) if config else home() / ".config") / "systemd" / "user" / UNIT

    def content(self, job: Job) -> bytes:
        """The filled in template. Raises ServiceError for what a unit cannot hold."""
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
        """The unit when systemd runs it, or is about to."""
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
        """Stop it and wait for its end. Raises ServiceError."""
        if self.loaded() is None:
            return False
        self._must("stop", UNIT, timeout_s=STOP_S)
        deadline = time.monotonic() + STOP_S
        while self.loaded() is not None:
            if time.monotonic() > deadline:
                message = f"{UNIT} is still running after {STOP_S:g} s"
                raise ServiceError(message, f"systemctl --user status {UNIT}")
            time.sleep(0.1)
        return True

    def start(self) -> None:
        """Start it. Raises ServiceError."""
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
