"""Starting and stopping the agent: through its job where that is installed, else detached; once, and only when needed."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotunectl.client import Client, ClientError, NotStarted, Unreachable
from autotuned.shared import wire

if TYPE_CHECKING:
    from autotunectl.service import Service

START_S = 15.0
STOP_S = 90.0


def start(path: str | None) -> dict[str, Any]:
    """Start the agent and return its `version` once it answers. Raises NotStarted with its own words.

    Where two clients do this at once, one agent refuses because the other holds the home: both clients
    then find that other one.
    """
    service = _installed(path)
    return _detached(path) if service is None else _through(service, path)


def _installed(path: str | None) -> Service | None:
    """The service manager whose job is installed; None for a socket of one's own, which is not the job's."""
    from autotunectl import service

    found = service.find() if path in (None, wire.socket_path()) else None
    return found if found is not None and found.path.is_file() else None


def _through(service: Service, path: str | None) -> dict[str, Any]:
    from autotunectl.service import ServiceError

    try:
        service.start()
    except ServiceError as error:
        message = f"{error}; {error.remedy}" if error.remedy else str(error)
        raise NotStarted(message) from None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ClientError), Client(path, connect_s=0.05) as client:
            version: dict[str, Any] = client.call("version")
            return version
        time.sleep(0.05)
    message = f"the agent's job was started, but it does not answer: {last_words(service)}"
    raise NotStarted(message)


def last_words(service: Service) -> str:
    """What the job's agent has said last outside its own log, and where the rest is."""
    log = service.output
    if log is None:
        return "see journalctl --user -u autotuned"
    try:
        with log.open("rb") as written:
            written.seek(max(0, log.stat().st_size - 4096))
            said = written.read().decode("utf-8", errors="replace")
    except OSError as error:
        return f"{log}: {error.strerror}"
    return f"{_reason(said)} (log: {log})"


def _detached(path: str | None) -> dict[str, Any]:
    log = _log_file()
    with log.open("ab") as output:
        begun = output.tell()
        agent = subprocess.Popen(
            words(path),
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
        said = written.read(4096).decode("utf-8", errors="replace")
    reason = _reason(said)
    if not said.strip() and _is_full(log.parent):
        reason = f"{log.parent}: the disk is full; free some space there"
    message = f"the agent did not start: {reason} (log: {log})"
    raise NotStarted(message, agent.returncode)


def _reason(text: str) -> str:
    """The agent's own line of complaint, else the last one."""
    said = text.strip().splitlines()
    last = said[-1] if said else "it said nothing"
    found = next((line for line in reversed(said) if line.startswith("autotuned:")), last)
    return found.removeprefix("autotuned: ")


def words(path: str | None) -> tuple[str, ...]:
    """The agent beside this client, with that socket."""
    from autotunectl.service import program

    return (*program.program(), *(("--socket", path) if path else ()))


def revive(path: str | None) -> None:
    """Start an agent that has died, unless that is a job's business. Raises NotStarted."""
    if _installed(path) is None:
        _detached(path)


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


def _is_full(folder: Path) -> bool:
    """Whether the disk has no room even for a message."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < 64 * 1024


def _log_file() -> Path:
    """Where a detached agent writes before it has its own log. Raises NotStarted naming the path and the remedy."""
    path = Path(wire.log_folder()) / "start.log"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600))
        if path.stat().st_size > 1_000_000:
            os.truncate(path, 0)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        remedy = "free some space there" if full else "make its folder writable for this user"
        message = f"the agent did not start: {error.filename or path}: {error.strerror}; {remedy}"
        raise NotStarted(message, wire.EXIT_CODES["config_error"]) from None
    return path
