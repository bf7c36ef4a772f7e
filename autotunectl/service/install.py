"""The agent as a job of this machine's service manager: written, validated, started, and taken away again.

Idempotent, and never at a live provider's cost: nothing is stopped while a run is active (unless
`cancel` ends it) or while a live provider is still owed its restore. Must not know how a service
manager is spoken to.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from autotunectl.client import CallError, Client, ClientError, Unreachable
from autotunectl.errors import CommandError
from autotunectl.service import process
from autotunectl.service.managers import Job, Service, ServiceError
from autotuned import __version__
from autotuned.shared import files, wire

if TYPE_CHECKING:
    from autotuned.documents.run import StatusDocument, VersionDocument

ANSWERS_S = 60.0
DEAD_S = 4.0
"""A job without a process for so long has crashed at its start, and waits to crash again."""
CANCELLED_S = 120.0
RESTORE_S = 240.0


class Uninstalled(TypedDict):
    """What has become of the job."""

    kind: str
    path: str
    changed: bool


class Installed(Uninstalled):
    """The job, and the agent that answers."""

    program: list[str]
    where: str | None
    pid: int | None
    version: str | None
    warnings: list[str]


def install(service: Service, socket: str | None, *, cancel: bool) -> Installed:
    """Make the job what it should be, and wait until its agent answers. Raises ClientError."""
    words = process.program()
    if socket:
        words = (*words, "--socket", os.path.abspath(socket))  # noqa: PTH100 - as typed, links kept
    job = Job(words, process.environment(os.environ, words))
    process.verify(process.program(), job.environment)
    process.check(words)
    content = service.content(job)
    loaded, agent = service.loaded(), process.version(socket)
    same = _stands(service.path, content)
    answers = agent is not None and loaded is not None and loaded.pid in (None, agent["pid"])
    changed = not (same and answers and agent is not None and agent["version"] == __version__)
    if changed:
        _make_way(service, socket, cancel=cancel, restore=False)
        _write(service, content)
        loaded = service.load()
        agent = _answering(service, socket)
    return {
        "kind": service.kind,
        "path": str(service.path),
        "program": list(words),
        "where": loaded.where if loaded is not None else None,
        "changed": changed,
        "pid": agent["pid"] if agent is not None else None,
        "version": agent["version"] if agent is not None else None,
        "warnings": process.doubts(words),
    }


def uninstall(service: Service, socket: str | None, *, cancel: bool) -> Uninstalled:
    """Put a drained provider back, stop the job and take its file away.

    Raises ClientError.
    """
    installed = service.path.is_symlink() or service.path.exists()
    loaded = service.loaded()
    if loaded is not None or installed:
        _make_way(service, socket, cancel=cancel, restore=True)
    service.path.unlink(missing_ok=True)
    if installed:
        service.forget()
    changed = installed or loaded is not None
    return {"kind": service.kind, "path": str(service.path), "changed": changed}


def _make_way(service: Service, socket: str | None, *, cancel: bool, restore: bool) -> None:
    """No run, no lease, no agent: neither the job's nor one that was started without it.

    `restore`: a live provider that is owed its restore is brought back first, rather than refused.
    """
    end_run(socket, cancel=cancel)
    _settle(socket, restore=restore)
    if service.unload():
        click.echo("the former job has been stopped", err=True)
    if process.stop(socket):
        click.echo("the agent that ran without the job has been stopped", err=True)


def end_run(socket: str | None, *, cancel: bool) -> None:
    """No run is active any more. Raises CommandError where one is, and is not to be cancelled."""
    status = _status(socket)
    run = status and status.get("run")
    if status and run and run["state"] == "running":
        if not cancel:
            drained = ", and has stopped the live provider for its time"
            message = f"run {run['run_id']} is active{drained if status.get('lease') else ''}"
            remedy = "autotunectl watch, or add --cancel to end it first"
            raise CommandError(message, wire.EXIT_BUSY, remedy)
        click.echo(f"cancelling run {run['run_id']}", err=True)
        with Client(socket) as client:
            client.call("cancel", run_id=run["run_id"])
            client.wait(run["run_id"], timeout_s=CANCELLED_S)


def _settle(socket: str | None, *, restore: bool) -> None:
    """Nothing is owed to a live provider, or it is brought back now. Raises CommandError."""
    status = _status(socket)
    if not _owed(status):
        return
    if restore:
        click.echo("bringing the live provider back first", err=True)
        if status is None:  # an agent that starts also ends what a crash has left running
            with contextlib.suppress(ClientError):
                process.start(socket)
                status = _status(socket)
        if not _owed(status) or _restored(socket, answers=status is not None):
            return
    message = "the live provider has been stopped and is still owed its restore"
    hint = "autotunectl provider restore; gone for good: autotunectl provider forget"
    raise CommandError(message, wire.EXIT_RESTORE_OUTSTANDING, hint)


def _owed(status: StatusDocument | None) -> bool:
    """What the agent says; where none runs what its journal says, and a damaged one says yes."""
    if status is not None:
        return status.get("lease") is not None
    try:
        with open(f"{wire.config_folder()}/run/lease.json", encoding="utf-8") as file:  # noqa: PTH123
            return bool(json.load(file)["state"] != "released")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _restored(socket: str | None, *, answers: bool) -> bool:
    if answers:
        with Client(socket) as client:
            return bool(client.request("provider.restore", {}, timeout_s=RESTORE_S)["restored"])
    words = [sys.executable, "-m", "autotuned.host.restore.break_glass", "restore"]
    return subprocess.run(words, check=False, stdout=sys.stderr, timeout=RESTORE_S).returncode == 0


def _answering(service: Service, socket: str | None) -> VersionDocument:
    """The `version` of the job's own agent, once it answers. Raises ServiceError with its last words."""
    deadline = time.monotonic() + ANSWERS_S
    lived = time.monotonic()
    while time.monotonic() < min(deadline, lived + DEAD_S):
        found, loaded = process.version(socket), service.loaded()
        pid = loaded.pid if loaded is not None else None
        if found is not None and loaded is not None and pid in (None, found["pid"]):
            return found
        lived = time.monotonic() if pid is not None else lived
        time.sleep(0.1)
    message = f"the job is loaded, but its agent does not answer: {process.last_words(service)}"
    raise ServiceError(message, "autotunectl logs; autotunectl doctor")


def _status(socket: str | None) -> StatusDocument | None:
    """What the agent says; None where none runs. Raises ClientError for one that runs and cannot be asked."""
    try:
        with Client(socket, connect_s=0.0) as client:
            found: StatusDocument = client.call("status")
            return found
    except Unreachable:
        return None
    except CallError as error:
        message = f"the agent that runs does not tell its status ({error}); end it first: autotunectl daemon stop"
        raise ClientError(message) from None


def _stands(path: Path, content: bytes) -> bool:
    """A regular file of ours with this content, which others may at most read: launchd ignores links, and refuses what others may write."""
    try:
        found, same = path.lstat(), path.read_bytes() == content
    except OSError:
        return False
    ours = not path.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return same and ours


def _write(service: Service, content: bytes) -> None:
    """Replace the job's file whole: a regular file, 0644. Raises ServiceError."""
    path = service.path
    try:
        if service.output is not None:  # a job whose output cannot be opened dies with 78
            service.output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.write_atomic(path, content, 0o644)
    except OSError as error:
        message = f"{error.filename or path}: cannot be written: {error.strerror}"
        raise ServiceError(message, "see who owns that folder, and that it is writable") from None
