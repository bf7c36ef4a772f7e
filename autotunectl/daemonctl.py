"""Starting and stopping the agent where no service manager does: detached, once, and only when needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from autotunectl.client import Client, ClientError, Unreachable

START_S = 15.0
STOP_S = 90.0


def connect(path: str | None, *, autostart: bool) -> Client:
    """A client whose agent answers; started here when there is none and `autostart` allows it. Raises ClientError."""
    client = Client(path, connect_s=0.0)
    try:
        client.check_protocol()
    except Unreachable:
        if not autostart:
            raise
        start(path)
        client = Client(path)
        client.check_protocol()
    return client


def start(path: str | None) -> dict[str, Any]:
    """Start the agent detached and return its `version` once it answers. Raises Unreachable with its own words.

    Where two clients do this at once, one agent refuses because the other holds the home: both clients
    then find that other one.
    """
    log = _log_file()
    with log.open("ab") as output:
        begun = output.tell()
        agent = subprocess.Popen(
            [*_program(), *(["--socket", path] if path else [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ended = agent.poll() is not None
        with contextlib.suppress(ClientError), Client(path, connect_s=0.05) as client:
            version: dict[str, Any] = client.call("version")
            return version
        if ended and agent.returncode != 1:
            break
        time.sleep(0.02)
    with log.open("rb") as written:
        written.seek(begun)
        said = written.read(4096).decode("utf-8", errors="replace").strip().splitlines()
    reason = next(
        (line for line in reversed(said) if line.startswith("autotuned:")),
        said[-1] if said else "it said nothing",
    )
    message = f"the agent did not start: {reason.removeprefix('autotuned: ')} (log: {log})"
    raise Unreachable(message)


def stop(path: str | None) -> bool:
    """Stop the agent gracefully and wait until its process is gone; False when none ran. Raises ClientError."""
    client = Client(path, connect_s=0.0)
    try:
        pid = int(client.call("version")["pid"])
    except Unreachable:
        return False
    with contextlib.suppress(Unreachable):
        client.call("shutdown")
    client.close()
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        if not _lives(pid):
            return True
        time.sleep(0.02)
    message = f"the agent (pid {pid}) is still stopping after {STOP_S:g} s"
    raise ClientError(message)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(
        OSError, IndexError
    ):  # Linux: a zombie that nobody reaps is gone all the same
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rpartition(")")[2]
            .split()[0]
            != "Z"
        )
    return True


def _program() -> list[str]:
    beside = Path(sys.executable).with_name("autotuned")
    if beside.is_file():
        return [str(beside)]
    found = shutil.which("autotuned")
    return [found] if found else [sys.executable, "-m", "autotuned"]


def _log_file() -> Path:
    home = Path(os.environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        folder = home / "Library" / "Logs" / "autotuned"
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or home / ".local" / "state") / "autotuned"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "start.log"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
    if path.stat().st_size > 1_000_000:
        os.truncate(path, 0)
    return path
