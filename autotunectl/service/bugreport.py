"""The bug report: one archive of what explains a fault, with every secret that is known or looks like one masked.

Each part is made by itself, and one that cannot be made says why in its place. Nothing of the
provider's configuration goes in, and no prompt or answer: the agent keeps none.
"""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autotunectl.client import Client, ClientError
from autotunectl.service import logfile
from autotuned import __version__
from autotuned.shared import wire
from autotuned.shared.text import printable

RUNS = 5
LOG_LINES = 2000
PROVIDER_LINES = 200
PROVIDER_LOGS = 10


def default_path() -> Path:
    """A name in the current folder that is not taken within the same second."""
    return Path(time.strftime("autotuned-bugreport-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))


def write(path: Path, diagnosis: dict[str, Any], socket: str | None) -> list[tuple[str, str]]:
    """Make the archive (0600); what is in it: name and content in words. Raises OSError, FileExistsError."""
    mask, home = logfile.mask(), os.environ.get("HOME")

    def clean(text: str) -> str:
        masked = mask(text)
        return masked.replace(home, "~") if home and len(home) > 1 else masked

    told = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as archive,
        ):
            for name, what, content in _parts(diagnosis, socket):
                _add(archive, name, clean(content))
                told.append((name, what))
            listing = "".join(f"{name:<22} {what}\n" for name, what in told)
            _add(archive, "CONTENTS.txt", listing)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return told


def _parts(diagnosis: dict[str, Any], socket: str | None) -> Iterator[tuple[str, str, str]]:
    yield "system.json", "versions of system, Python and client", _json(_system())
    yield "doctor.json", "what autotunectl doctor finds", _json(diagnosis)
    with Client(socket, connect_s=0.0) as client:
        for name, what, ask in _questions(client):
            yield name, what, _attempt(ask)
    log = Path(wire.log_folder()) / wire.LOG_NAME
    yield "autotuned.log", f"the last {LOG_LINES} lines of the agent's log", _tail(log, LOG_LINES)
    for name in ("launchd.log", "start.log"):
        if (log.parent / name).exists():
            yield (
                name,
                "what the agent said outside its log",
                _tail(log.parent / name, PROVIDER_LINES),
            )
    settings = Path(wire.config_folder()) / "autotuned.toml"
    yield "autotuned.toml", "the settings", _attempt(lambda: settings.read_text("utf-8", "replace"))
    for provider in _newest_provider_logs(log.parent / "runs"):
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


def _system() -> dict[str, Any]:
    return {
        "autotunectl": __version__,
        "protocol": wire.PROTOCOL,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "program": sys.argv[0],
        "variables": sorted(
            name for name in os.environ if name.startswith(("AUTOTUNED_", "HF_", "XDG_"))
        ),
    }


def _newest_provider_logs(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*/*.log"), key=lambda path: path.stat().st_mtime)
    return found[-PROVIDER_LOGS:]


def _tail(path: Path, lines: int) -> str:
    return _attempt(lambda: printable("\n".join(logfile.last(path, lines)), "") + "\n")


def _attempt(make: Callable[[], str]) -> str:
    try:
        return make()
    except (ClientError, OSError, KeyError) as error:
        return f"not available: {error}\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode("utf-8", "replace")
    entry = tarfile.TarInfo(f"autotuned-bugreport/{name}")
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(data))
