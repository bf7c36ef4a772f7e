"""What can be checked with no agent to ask, and the bug report: one archive of what explains a fault.

The checks are the same document as the agent's own `doctor`, so that whoever reads it need not care who
looked. In the archive every secret that is known or looks like one is masked; a part that cannot be made
says why in its place. Nothing of the provider's configuration goes in, and no prompt or answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autotunectl.client import Client, ClientError
from autotunectl.service import logfile, managers, process
from autotunectl.service.managers import ServiceError
from autotuned import __version__
from autotuned.shared import wire
from autotuned.shared.files import open_to_others
from autotuned.shared.text import printable

if TYPE_CHECKING:
    import tarfile

    from autotuned.documents.doctor import CheckDocument, DoctorDocument

RUNS = 5
LOG_LINES = 2000
PROVIDER_LINES = 200
PROVIDER_LOGS = 10


def without_agent(reason: str, socket: str | None) -> DoctorDocument:
    """The agent that does not answer first, then what may be the cause."""
    silent = _error(f"it does not answer: {reason}", "autotunectl daemon start; autotunectl logs")
    folder = Path(wire.config_folder())
    checks = {
        "agent": silent,
        "program": _program(),
        "socket": _folder(Path(socket or wire.socket_path()).parent),
        "lock": _holder(folder / "run" / "autotuned.lock"),
        "settings": _settings(folder / "autotuned.toml"),
        "job": _job(),
    }
    named: list[CheckDocument] = [{**check, "name": name} for name, check in checks.items()]
    return {"ok": False, "checks": named}


def _error(detail: str, remedy: str | None) -> CheckDocument:
    return {"name": "", "ok": False, "level": "error", "detail": detail, "remedy": remedy}


def _info(detail: str) -> CheckDocument:
    return {"name": "", "ok": True, "level": "info", "detail": detail, "remedy": None}


def _program() -> CheckDocument:
    words = process.program()
    try:
        process.verify(words, {"PATH": os.environ.get("PATH", os.defpath)})
    except ServiceError as error:
        return _error(str(error), error.remedy)
    return _info(" ".join(words))


def _folder(folder: Path) -> CheckDocument:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return _info(f"{folder} does not exist yet")
    except OSError as error:
        return _error(f"{folder}: {error.strerror}", "see who owns the folders above it")
    if not stat.S_ISDIR(found.st_mode):
        return _error(f"{folder} is a link or a file, not a folder", f"rm '{folder}'")
    if fault := open_to_others(folder, found):
        return _error(f"{folder} {fault[0]}", fault[1])
    return _info(f"{folder}, for this user alone")


def _holder(lock: Path) -> CheckDocument:
    """Whether an agent holds this home without answering: it is starting, hangs, or has another socket."""
    said = ""
    try:
        with lock.open("rb") as file:
            said = file.read(100).decode("utf-8", "replace").strip()
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return _info("no agent has ever run here")
    except BlockingIOError:
        remedy = "end that process: kill PID (the live provider comes back by itself)"
        message = f"an agent holds this home, but does not answer here: {said}"
        return _error(message, f"if it stays so, {remedy}")
    except OSError as error:
        return _error(f"{lock}: {error.strerror}", f"see its owner and mode: ls -l '{lock}'")
    return _info("no agent holds this home")


def _settings(path: Path) -> CheckDocument:
    import tomllib

    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _info(f"defaults: there is no {path}")
    except (OSError, ValueError) as error:
        return _error(f"{path}: {error}", "correct the file")
    return _info(f"{path} is TOML; whether its keys are right, the agent says at its start")


def _job() -> CheckDocument:
    found = managers.find()
    if found is None or not found.path.exists():
        return {**_info("not installed"), "remedy": "autotunectl install"}
    with contextlib.suppress(ServiceError):
        loaded, again = found.loaded(), "autotunectl install"
        if loaded is None:
            return _error(f"{found.path} is there, but {found.kind} has not loaded it", again)
        if loaded.pid is None:
            remedy = f"autotunectl logs; {again}"
            return _error(f"{found.kind} has the job, but no process of it runs", remedy)
    return _info(f"{found.path} is loaded")


def archive_path() -> Path:
    """A name in the current folder that is not taken within the same second."""
    return Path(time.strftime("autotuned-bugreport-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))


def pack(path: Path, diagnosis: DoctorDocument, socket: str | None) -> list[tuple[str, str]]:
    """Make the archive (0600); what is in it: name and content in words. Raises OSError, FileExistsError."""
    import tarfile

    mask, home = logfile.mask(), os.environ.get("HOME")

    def clean(text: str) -> str:
        masked = mask(text)
        return masked.replace(home, "~") if home and len(home) > 1 else masked

    told = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, what, content in _parts(diagnosis, socket):
                _add(archive, name, clean(content))
                told.append((name, what))
            listing = "".join(f"{name:<22} {what}\n" for name, what in told)
            _add(archive, "CONTENTS.txt", listing)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return told


def _parts(diagnosis: DoctorDocument, socket: str | None) -> Iterator[tuple[str, str, str]]:
    yield "system.json", "versions of system, Python and client", _json(_system())
    yield "doctor.json", "what autotunectl doctor finds", _json(diagnosis)
    with Client(socket, connect_s=0.0) as client:
        for name, what, ask in _questions(client):
            yield name, what, _attempt(ask)
    log = Path(wire.log_folder()) / wire.LOG_NAME
    yield "autotuned.log", f"the last {LOG_LINES} lines of the agent's log", _tail(log, LOG_LINES)
    for name in ("launchd.log", "start.log"):
        if (log.parent / name).exists():
            said = _tail(log.parent / name, PROVIDER_LINES)
            yield name, "what the agent said outside its log", said
    settings = Path(wire.config_folder()) / "autotuned.toml"
    yield "autotuned.toml", "the settings", _attempt(lambda: settings.read_text("utf-8", "replace"))
    logs = sorted((log.parent / "runs").glob("*/*.log"), key=lambda path: path.stat().st_mtime)
    for provider in logs[-PROVIDER_LOGS:]:
        name = f"runs/{provider.parent.name}/{provider.name}"
        yield name, "what a candidate printed last", _tail(provider, PROVIDER_LINES)


def _questions(client: Client) -> list[tuple[str, str, Callable[[], str]]]:
    def results() -> str:
        runs = client.call("runs", limit=RUNS)["runs"]
        return _json([client.call("result", run_id=run["run_id"]) for run in runs])

    return [
        ("version.json", "the agent's version", lambda: _json(client.call("version"))),
        ("status.json", "what the agent does now", lambda: _json(client.call("status"))),
        ("runs.json", f"the documents of the last {RUNS} runs", results),
    ]


def _system() -> dict[str, object]:
    import platform

    return {
        "autotunectl": __version__,
        "protocol": wire.PROTOCOL,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "program": sys.argv[0],
        "variables": sorted(filter(re.compile("AUTOTUNED_|HF_|XDG_").match, os.environ)),
    }


def _tail(path: Path, lines: int) -> str:
    return _attempt(lambda: printable("\n".join(logfile.last(path, lines)), "") + "\n")


def _attempt(make: Callable[[], str]) -> str:
    try:
        return make()
    except (ClientError, OSError, KeyError) as error:
        return f"not available: {error}\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "replace")
    import tarfile

    entry = tarfile.TarInfo(f"autotuned-bugreport/{name}")
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))
