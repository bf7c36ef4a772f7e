"""The operator's own server, as tests install and watch it: a job of the scripted launchd, or a process.

A job runs the home's scripted provider under the home's own program name; when the home ends, it is
taken down. What the tests ask (loaded, alive, how often started) is read from what really happened:
the processes and the log of calls, never from the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psutil

from tests.support.home import DEADLINE_S, Home, free_port, poll, port_is_free

LABEL, OLD_LABEL = "live.malibu.provider", "live.streamvc.macprovider"
FOREVER = 3600.0


class LaunchdJob:
    """A live provider that the scripted launchd has loaded and started.

    `home.provider(...)` must have been called; the program gets the home's own name, and the settings of
    the home name it, followed by `settings`.
    """

    def __init__(
        self,
        home: Home,
        *,
        label: str = LABEL,
        domain: str = "gui",
        settings: str = "",
        start: bool = True,
        config: str = "",
        **plan: Any,
    ) -> None:
        self.home, self.label = home, label
        self.domain = f"{domain}/{os.getuid()}" if domain != "system" else domain
        self.target = f"{self.domain}/{label}"
        self.port = free_port()
        own_name(home, settings)
        folder = home.path / ".config" / "macprovider"
        self.config = folder / "config.yaml"
        self.config.write_text(f"model: mine\nport: {self.port}\n{config}", encoding="utf-8")
        self.log = home.path / "macprovider.err.log"
        self.argv = [str(home.bin / home.program), "serve", "--config", str(self.config)]
        agents = home.path / "Library" / "LaunchAgents"
        agents.mkdir(parents=True, exist_ok=True)
        self.plist = agents / f"{label}.plist"
        self.write_plist()
        install_launchctl(home)
        self._plan: dict[str, Any] = {}
        self.plan(**plan)
        home.at_end.append(self.take_down)
        if start:
            done = self.launchctl("bootstrap", self.domain, str(self.plist))
            assert done.returncode == 0, done.stderr
            poll(self.serving, "the live provider serves")
            self._log().write_text("", encoding="utf-8")

    def definition(self) -> dict[str, Any]:
        """The content of the plist."""
        return {
            "Label": self.label,
            "ProgramArguments": self.argv,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "EnvironmentVariables": {"HOME": str(self.home.path), "LIVE": "yes"},
            "WorkingDirectory": str(self.home.path),
            "StandardErrorPath": str(self.log),
        }

    def write_plist(self) -> None:
        """Write the plist as the attributes are now: an update of the provider may do so at any time."""
        fresh = self.plist.with_suffix(".new")
        fresh.write_bytes(plistlib.dumps(self.definition()))
        fresh.chmod(0o644)
        fresh.replace(self.plist)

    # --- how it behaves ----------------------------------------------------------------------------

    def plan(self, **plan: Any) -> None:
        """Change how launchd behaves from now on (see fake_launchctl), beside the faults."""
        self._plan |= plan
        path = self.home.bin / "launchctl-plan.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(self._plan), encoding="utf-8")
        fresh.replace(path)

    def fault(self, verb: str, code: int = 0, **fault: Any) -> None:
        """Let the next calls of `verb` go wrong: `times`, `skip`, `hang_s`, `act`, `outcome`, `for_s`, `for_ever`."""
        added = {"id": uuid.uuid4().hex, "verb": verb, "code": code, **fault}
        self.plan(faults=[*self._plan.get("faults", []), added])

    def mend(self) -> None:
        """No fault any more."""
        self.plan(faults=[])

    def launchctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What the operator, or the provider's own watchdog, does behind the agent's back."""
        return subprocess.run(
            [str(self.home.bin / "launchctl"), *words],
            env=self.home.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def revive(self) -> None:
        """The watchdog brings it back, as soon as launchd lets it."""

        def loaded() -> bool:
            done = self.launchctl("watchdog-bootstrap", self.domain, str(self.plist))
            return done.returncode != 5

        poll(loaded, "the watchdog gets its way")

    def reboot(self) -> None:
        """Power loss and the next login: all processes of the home die, launchd loads what has a plist."""
        daemon = self.home.daemon
        everybody = [*_descendants(daemon.pid), *self.home.processes()] if daemon else []
        for process in everybody:  # the guardian, which is among the first, must not act any more
            with contextlib.suppress(psutil.Error):
                process.kill()
        if daemon is not None:
            daemon.wait(DEADLINE_S)
        self.launchctl("reboot-machine")

    def take_down(self) -> None:
        """End it, in whatever state it is, so that the home can end."""
        self.plan(faults=[])
        self.launchctl("unload-everything")

    # --- what really happened ----------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        try:
            text = (self.home.bin / "launchctl-state.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        return dict(json.loads(text)["jobs"].get(self.target, {}))

    def loaded(self) -> bool:
        """launchd has its definition, and is not about to forget it."""
        job = self._state()
        return bool(job) and job["dying_since"] is None

    def pid(self) -> int | None:
        """The pid of its live process."""
        pid = self._state().get("pid")
        if pid is None or not alive(pid):
            return None
        return int(pid)

    def alive(self) -> bool:
        """Its process lives."""
        return self.pid() is not None

    def back(self) -> bool:
        """Loaded with a live process: what the agent owes."""
        return self.loaded() and self.alive()

    def serving(self) -> bool:
        """Its port answers."""
        return self.back() and not port_is_free(self.port)

    def starts(self) -> list[dict[str, Any]]:
        """Each start of the live provider, as its own program saw it."""
        return [entry for entry in self.home.calls("started") if "--no-join" not in entry["argv"]]

    def _log(self) -> Path:
        return self.home.bin / "launchctl-calls.jsonl"

    def calls(self, verb: str | None = None) -> list[list[str]]:
        """The words of each call of launchctl since it was installed, oldest first; of one verb where given."""
        try:
            lines = self._log().read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        entries = [entry for entry in map(json.loads, lines) if entry.get("begins")]
        return [entry["call"] for entry in entries if verb in (None, entry["call"][0])]


class Foreground:
    """A live provider that somebody has started in a terminal."""

    def __init__(self, home: Home, *words: str, settings: str = "", **environ: str) -> None:
        self.home, self.port = home, free_port()
        own_name(home, settings)
        self.argv = [str(home.bin / home.program), "serve", "--port", str(self.port), *words]
        self.cwd = home.path / "where it was started"
        self.cwd.mkdir()
        self.process = subprocess.Popen(
            self.argv, env={**home.environ, **environ}, cwd=self.cwd, start_new_session=True
        )
        home.at_end.append(self.take_down)
        poll(lambda: not port_is_free(self.port), "the live provider serves")

    def alive(self) -> bool:
        """The process that the test started lives."""
        return self.process.poll() is None

    def running(self) -> list[psutil.Process]:
        """Live processes of this provider that serve, whoever started them."""
        return [process for process in self.home.processes() if _is(process, self.argv)]

    def starts(self) -> list[dict[str, Any]]:
        """Each start of the live provider, as its own program saw it."""
        return [entry for entry in self.home.calls("started") if "--no-join" not in entry["argv"]]

    def take_down(self) -> None:
        """End it, and whatever has been started in its place."""
        for process in self.running():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait(DEADLINE_S)


def install_launchctl(home: Home) -> Path:
    """Put the scripted launchctl on the home's PATH; its boot id is the one that the agent reads."""
    script = home.bin / "launchctl"
    here = Path(__file__)
    source = here.with_name("fake_launchctl.py").read_text(encoding="utf-8")
    script.write_text(f"#!{sys.executable} -SE\n{source}", encoding="utf-8")
    beside = home.bin / "tests" / "support"  # where the script's own import finds it
    beside.mkdir(parents=True, exist_ok=True)
    shutil.copy(here.with_name("fake_launchd.py"), beside)
    script.chmod(0o755)
    boot = home.bin / "boot-id"
    if not boot.exists():
        boot.write_text(f"{uuid.uuid4()}\n", encoding="utf-8")
    home.environ["AUTOTUNED_BOOT_ID_FILE"] = str(boot)
    return script


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(pid: int) -> bool:
    """This process lives, and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def own_name(home: Home, settings: str) -> None:
    """Rename the scripted provider to the home's own name, so that homes beside it do not see it."""
    old = home.bin / home.program
    table = home.private_program()
    (home.bin / home.program).write_bytes(old.read_bytes())
    (home.bin / home.program).chmod(0o755)
    if old.name != home.program:
        old.unlink()
    home.settings(table + settings)


def _is(process: psutil.Process, argv: list[str]) -> bool:
    try:
        return process.cmdline()[-len(argv) :] == argv
    except psutil.Error:
        return False
