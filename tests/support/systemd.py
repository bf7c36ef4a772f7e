"""A real `systemd --user` for one home: a manager of its own, in a mount namespace and a cgroup of its own.

The home gets a `systemctl` that speaks to it, and units in `~/.config/systemd/user`; its real name of the
bus is nobody else's. Where the namespace or systemd cannot be had, `unavailable` says why; a test fails
then where CI is set.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.home import DEADLINE_S, Home, free_port, poll, port_is_free
from tests.support.live import own_name

BINARY = "/lib/systemd/systemd"
BUS = "DBUS_SESSION_BUS_ADDRESS"
CGROUPS = Path("/sys/fs/cgroup")

MANAGER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system {runtime}
chmod 700 {runtime}
for folder in {cgroups}; do mkdir -p $folder; echo $$ > $folder/cgroup.procs; done
export XDG_RUNTIME_DIR={runtime} HOME={home}
unset DBUS_SESSION_BUS_ADDRESS
export DBUS_SESSION_BUS_ADDRESS=unix:path={bus}
setpriv --pdeathsig KILL dbus-daemon --session --address=unix:path={bus} --nofork --nopidfile >/dev/null 2>&1 &
exec {binary} --user --log-target=console
"""


def unavailable() -> str | None:
    """Why no manager can be started here; None where one can."""
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        return "a systemd of its own needs Linux and root"
    missing = [
        name
        for name in ("systemctl", "dbus-daemon", "unshare", "setpriv")
        if not shutil.which(name)
    ]
    missing += [] if Path(BINARY).exists() else [BINARY]
    return f"not installed: {', '.join(missing)}" if missing else None


class Systemd:
    """A user manager; its units live below the home, so that nothing of the machine is touched."""

    def __init__(self, home: Home) -> None:
        reason = unavailable()
        if reason is not None:
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self.home = home
        self.units = home.path / ".config" / "systemd" / "user"
        self.units.mkdir(parents=True)
        runtime = home.path / "r"
        runtime.mkdir(mode=0o700)
        self.bus = runtime / "bus"
        name = f"autotuned-test-{home.path.name}"
        roots = [CGROUPS / kind for kind in ("systemd", "unified")]
        roots = [root for root in roots if root.is_dir()] or [CGROUPS]
        self.cgroups = [root / name for root in roots]
        script = MANAGER.format(
            runtime=runtime,
            cgroups=" ".join(map(str, self.cgroups)),
            home=home.path,
            bus=self.bus,
            binary=BINARY,
        )
        home.environ |= {"XDG_RUNTIME_DIR": str(runtime), BUS: f"unix:path={self.bus}"}
        self.log = home.path / "systemd.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                # Also where the test itself is killed, the manager stops its units and ends.
                ["setpriv", "--pdeathsig", "TERM", "unshare", "-m", "sh", "-c", script],
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home.path)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        home.at_end.append(self.take_down)
        try:
            poll(lambda: self.ctl("show", "--property=Version").returncode == 0, deadline_s=15)
        except AssertionError:
            pytest.fail(f"systemd --user does not come up: {self.log.read_text()[-2000:]}")

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What the operator does with `systemctl --user`."""
        return subprocess.run(
            ["systemctl", "--user", *words],
            env=self.home.environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    def must(self, *words: str) -> str:
        """`ctl` that succeeds; what it prints."""
        done = self.ctl(*words)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def take_down(self) -> None:
        """End the manager and all that it runs, and its cgroup folders with it."""
        children = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children(recursive=True)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for process in children:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(sent)
            self.process.send_signal(sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
                break
        psutil.wait_procs(children, 5)
        for process in self.home.processes():
            process.kill()
        for root in self.cgroups:
            poll(lambda root=root: _removed(root), f"{root} is empty")  # type: ignore[misc]


class SystemdUnit:
    """The home's scripted provider in a unit of the user, or the server that `argv` starts on the port.

    `settings` are added to its `[Service]`.
    """

    def __init__(
        self,
        systemd: Systemd,
        name: str = "llama.service",
        settings: str = "Restart=always",
        argv: Sequence[str] = (),
    ) -> None:
        home = systemd.home
        self.systemd, self.name, self.home, self.port = systemd, name, home, free_port()
        if not argv:
            own_name(home, "")
            argv = [str(home.bin / home.program), "serve"]
        self.argv = [*argv, "--port", str(self.port)]
        self.file = systemd.units / name
        self.file.write_text(
            "# the operator's own\n[Unit]\nDescription=the live server\n\n"
            f"[Service]\nExecStart={shlex.join(self.argv)}\n{settings}\n",
            encoding="utf-8",
        )
        systemd.must("daemon-reload")
        systemd.must("start", name)
        poll(lambda: not port_is_free(self.port), "the live server serves")

    def show(self, key: str) -> str:
        """One property of the unit, as systemd has it."""
        return self.systemd.must("show", self.name, f"--property={key}", "--value")

    def pid(self) -> int:
        """Its main process; 0 where none is."""
        return int(self.show("MainPID"))

    def back(self) -> bool:
        """Active, with its port answering."""
        return self.show("ActiveState") == "active" and not port_is_free(self.port)

    def starts(self) -> list[dict[str, Any]]:
        """Each start of the live server, as its own program saw it."""
        return [entry for entry in self.home.calls("started") if "--no-join" not in entry["argv"]]


def _removed(root: Path) -> bool:
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):
        root.rmdir()
    return not root.exists()
