"""Which program the agent is, and how it is started and stopped: through its job where that is installed, else detached.

It is the one that is installed beside this client, and no other: a PATH is never searched for it. A job's
environment is written down once, because a service manager gives a job next to none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from autotunectl.client import Client, ClientError, NotStarted, Unreachable
from autotunectl.service import managers
from autotunectl.service.managers import Service, ServiceError
from autotuned import __version__
from autotuned.shared import identity, tools, wire

if TYPE_CHECKING:
    from autotuned.documents.run import VersionDocument

START_S = 15.0
STOP_S = 90.0
SYSTEM_PATH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
USUAL_PATH = ("/opt/homebrew/bin", "/usr/local/bin")
TOOLS = ("macprovider-cli", "llama-server", "mlx_lm.server", "launchctl", "caffeinate", "pmset")
"""Programs that the agent looks for by name: where this terminal finds them, the job shall, too."""
CARRIED = (
    *("AUTOTUNED_SOCKET", "AUTOTUNED_DB_PATH", "HF_HOME", "HF_HUB_CACHE"),
    *("HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"),
)
"""Variables that say where files are. Tokens are no part of it: a job's file is no place for a secret."""

_UV = r"/\.cache/uv/|/uv/archive-v\d+/|/uv/builds-v\d+/"
_FLEETING = (
    (r"/Cellar/", "Homebrew removes this folder at the next upgrade"),
    (_UV, "uv clears this folder at will (uvx, uv run --with)"),
    (r"/pipx/\.cache/|/\.cache/pipx/", "pipx clears this folder after some days (pipx run)"),
    (r"^/(?:private/)?(?:tmp|var/tmp|var/folders)/", "the system clears this folder"),
    (r"/nix/store/", "the next garbage collection may remove this folder"),
    (r"^/Volumes/", "this volume may not be mounted at login"),
)


def start(path: str | None) -> VersionDocument:
    """Start the agent and return its `version` once it answers. Raises NotStarted with its own words.

    Where two clients do this at once, one agent refuses because the other holds the home: both clients
    then find that other one.
    """
    job = _installed(path)
    return _detached(path) if job is None else _through(job, path)


def _installed(path: str | None) -> Service | None:
    """The service manager whose job is installed; None for a socket of one's own, which is not the job's."""
    found = managers.find() if path in (None, wire.socket_path()) else None
    return found if found is not None and found.path.is_file() else None


def _through(job: Service, path: str | None) -> VersionDocument:
    try:
        job.start()
    except ServiceError as error:
        message = f"{error}; {error.remedy}" if error.remedy else str(error)
        raise NotStarted(message) from None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if (found := version(path)) is not None:
            return found
        time.sleep(0.05)
    message = f"the agent's job was started, but it does not answer: {last_words(job)}"
    raise NotStarted(message)


def version(path: str | None) -> VersionDocument | None:
    """What the agent says, soon; None where none answers."""
    with contextlib.suppress(ClientError), Client(path, connect_s=0.05) as client:
        found: VersionDocument = client.request("version", {}, timeout_s=10.0)
        return found
    return None


def last_words(job: Service) -> str:
    """What the job's agent has said last outside its own log, and where the rest is."""
    log = job.output
    if log is None:
        return "see journalctl --user -u autotuned"
    try:
        return f"{_reason(_read(log, max(0, log.stat().st_size - 4096)))} (log: {log})"
    except OSError as error:
        return f"{log}: {error.strerror}"


def _read(log: Path, begin: int) -> str:
    with log.open("rb") as written:
        written.seek(begin)
        return written.read(4096).decode("utf-8", errors="replace")


def _detached(path: str | None) -> VersionDocument:
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
        if (found := version(path)) is not None:
            return found
        if ended and agent.returncode != 1:
            break
        time.sleep(0.02)
    said = _read(log, begun)
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
    return (*program(), *(("--socket", path) if path else ()))


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
        if not identity.alive(pid):
            return True
        time.sleep(0.02)
    message = f"the agent (pid {pid}) is still stopping after {STOP_S:g} s"
    raise ClientError(message)


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


def program() -> tuple[str, ...]:
    """The agent beside this client, as words to run. Links below it are kept: they are what stays stable."""
    python = _stable(Path(os.path.abspath(sys.executable)))  # noqa: PTH100 - resolve() would leave the venv
    beside = python.with_name("autotuned")
    return (str(beside),) if beside.is_file() else (str(python), "-m", "autotuned")


def doubts(words: tuple[str, ...]) -> list[str]:
    """What may make this program vanish one day, each with the reason."""
    base = Path(words[0]).parent.parent / "pyvenv.cfg"
    paths = [words[0], *_base_python(base)]
    return [
        f"{path} may not last: {reason}; install autotuned with pipx or uv tool, or into a virtual environment"
        for path in paths
        for pattern, reason in _FLEETING
        if re.search(pattern, path)
    ]


def environment(environ: Mapping[str, str], words: tuple[str, ...]) -> dict[str, str]:
    """PATH and the places of files, for a job that runs `words`."""
    found = [shutil.which(tool, path=environ.get("PATH")) for tool in TOOLS]
    folders = [str(Path(path).parent) for path in found if path and path.startswith("/")]
    usual = [folder for folder in USUAL_PATH if Path(folder).is_dir()]
    path = dict.fromkeys([*folders, str(Path(words[0]).parent), *usual, *SYSTEM_PATH])
    carried = {name: environ[name] for name in CARRIED if environ.get(name)}
    return {"PATH": ":".join(path), **carried}


def verify(words: tuple[str, ...], environ: Mapping[str, str]) -> None:
    """See that the program runs in nearly nothing, and is of this client's version. Raises ServiceError."""
    answer = tools.run(
        ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environ.items()), *words, "--version"], 30.0
    )
    if answer.code != 0:
        message = f"{' '.join(words)} --version does not run: {answer.line}"
        raise ServiceError(message, "install autotuned again, then run autotunectl install")
    if answer.out.split()[-1:] != [__version__]:
        message = f"{words[0]} is version {answer.out.strip()!r}, this client is {__version__}"
        raise ServiceError(message, "run the autotunectl that is installed beside it")


def check(words: tuple[str, ...]) -> None:
    """See that the program can use its settings, before one that runs gives way to it. Raises ServiceError."""
    answer = tools.run([*words, "--check"], 30.0)
    if answer.code != 0:
        raise ServiceError(answer.line.removeprefix("autotuned: "), "correct it, then try again")


def _stable(path: Path) -> Path:
    """Homebrew's lasting name for a path in its cellar, where there is one."""
    found = re.match(r"^(.*)/Cellar/([^/]+)/[^/]+/(.*)$", str(path))
    lasting = Path(f"{found[1]}/opt/{found[2]}/{found[3]}") if found else path
    return lasting if lasting.exists() else path


def _base_python(config: Path) -> list[str]:
    """The interpreter below a virtual environment."""
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [home.strip() for home in re.findall(r"^\s*home\s*=(.*)$", text, re.MULTILINE)]
