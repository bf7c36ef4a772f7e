"""What can be checked with no agent to ask: why there is none, and what the client itself can see.

The same document as the agent's own `doctor`, so that whoever reads it need not care who looked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

from autotunectl import service
from autotunectl.client import Client
from autotunectl.service import ServiceError, program
from autotuned.shared import wire
from autotuned.shared.files import open_to_others


def without_agent(reason: str, socket: str | None) -> dict[str, Any]:
    """`{ok: false, checks}`: the agent that does not answer first, then what may be the cause."""
    checks = [
        _check(
            "agent",
            "error",
            f"it does not answer: {reason}",
            "autotunectl daemon start; autotunectl logs",
        ),
        _program(),
        _folder(Path(socket or wire.socket_path()).parent),
        _holder(Path(wire.config_folder()) / "run" / "autotuned.lock"),
        _settings(Path(wire.config_folder()) / "autotuned.toml"),
        _job(),
    ]
    return {"ok": False, "checks": checks}


def _check(name: str, level: str, detail: str, remedy: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "ok": level != "error",
        "level": level,
        "detail": detail,
        "remedy": remedy,
    }


def _program() -> dict[str, Any]:
    words = program.program()
    try:
        program.verify(words, {"PATH": os.environ.get("PATH", os.defpath)})
    except ServiceError as error:
        return _check("program", "error", str(error), error.remedy)
    return _check("program", "info", " ".join(words))


def _folder(folder: Path) -> dict[str, Any]:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return _check("socket", "info", f"{folder} does not exist yet")
    except OSError as error:
        return _check(
            "socket", "error", f"{folder}: {error.strerror}", "see who owns the folders above it"
        )
    if not stat.S_ISDIR(found.st_mode):
        return _check(
            "socket", "error", f"{folder} is a link or a file, not a folder", f"rm '{folder}'"
        )
    if fault := open_to_others(folder, found):
        return _check("socket", "error", f"{folder} {fault[0]}", fault[1])
    return _check("socket", "info", f"{folder}, for this user alone")


def _holder(lock: Path) -> dict[str, Any]:
    """Whether an agent holds this home without answering: it is starting, hangs, or has another socket."""
    try:
        with lock.open("rb") as file:
            said = file.read(100).decode("utf-8", "replace").strip()
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                remedy = "if it stays so, end that process: kill PID (the live provider comes back by itself)"
                return _check(
                    "lock",
                    "error",
                    f"an agent holds this home, but does not answer here: {said}",
                    remedy,
                )
    except FileNotFoundError:
        return _check("lock", "info", "no agent has ever run here")
    except OSError as error:
        return _check(
            "lock", "error", f"{lock}: {error.strerror}", f"see its owner and mode: ls -l '{lock}'"
        )
    return _check("lock", "info", "no agent holds this home")


def _settings(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _check("settings", "info", f"defaults: there is no {path}")
    except (OSError, ValueError) as error:
        return _check("settings", "error", f"{path}: {error}", "correct the file")
    return _check(
        "settings",
        "info",
        f"{path} is TOML; whether its keys are right, the agent says at its start",
    )


def _job() -> dict[str, Any]:
    found = service.find()
    if found is None or not found.path.exists():
        return _check("job", "info", "not installed", "autotunectl install")
    with contextlib.suppress(ServiceError):
        loaded = found.loaded()
        if loaded is None:
            return _check(
                "job",
                "error",
                f"{found.path} is there, but {found.kind} has not loaded it",
                "autotunectl install",
            )
        if loaded.pid is None:
            return _check(
                "job",
                "error",
                f"{found.kind} has the job, but no process of it runs",
                "autotunectl logs; autotunectl install",
            )
    return _check("job", "info", f"{found.path} is loaded")


def ask(client: Client, **params: bool) -> dict[str, Any]:
    """The agent's own `doctor`; its checks have deadlines of their own."""
    found: dict[str, Any] = client.request("doctor", params, timeout_s=60.0)
    return found
