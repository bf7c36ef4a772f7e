"""The lease as it is first written: all that it takes to bring back what is about to be stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shlex
from pathlib import Path

import psutil

from autotuned.core.lease import Foreground, Job, Lease, State, Unit
from autotuned.core.request import TuneRequest
from autotuned.errors import ProviderConflict
from autotuned.host.clock import utc_now
from autotuned.host.find import Found, Managed, Process
from autotuned.host.managers import Managers
from autotuned.host.managers.systemd import UnitState
from autotuned.settings import Settings
from autotuned.shared.identity import boot_id, started
from autotuned.shared.redaction import command_line, known_secrets, masker

USUAL_UMASK = 0o022


def contract(
    run_id: str, found: Found, request: TuneRequest, managers: Managers, settings: Settings
) -> Lease:
    """A lease on the live provider that was found, in the state `intent`.

    Raises ProviderConflict where it could not be brought back as it was.
    """
    live = found.live
    assert live is not None  # noqa: S101 - a drain is asked for what was found
    now = utc_now()
    return Lease(
        lease_id=f"{run_id}-{secrets.token_hex(3)}",
        run_id=run_id,
        state=State.INTENT,
        target=_service(live) if isinstance(live, Managed) else foreground(live, request, settings),
        holder_pid=os.getpid(),
        boot_id=boot_id(managers.environ),
        taken_at=now,
        updated_at=now,
        port=live.port,
        candidate_port=request.port,
        launchctl=managers.launchd.program,
    )


def _service(live: Managed) -> Job | Unit:
    job, plist = live.job, live.plist
    since = None if job.pid is None else started(job.pid)
    was_running = job.running or job.coming or job.dying
    if isinstance(job, UnitState):
        program = live.argv[0] if live.argv else None
        return Unit(job.label, job.domain, program, job.pid, since, was_running, job.exit_timeout_s)
    assert plist is not None  # noqa: S101 - without one a drain is refused
    try:
        digest = hashlib.sha256(plist.read_bytes()).hexdigest()
    except OSError as error:
        message = (
            f"{plist}: cannot be read, so {live.name} could not be brought back: {error.strerror}"
        )
        raise ProviderConflict(message, [live.name], reason="undrainable") from error
    return Job(
        label=job.label,
        domain=job.domain,
        plist=str(plist),
        plist_sha256=digest,
        program=job.program,
        pid=job.pid,
        started=since,
        was_running=was_running,
        exit_timeout_s=job.exit_timeout_s,
    )


def foreground(live: Process, request: TuneRequest, settings: Settings) -> Foreground:
    """A process that somebody started from a terminal, as it is stopped for `request`.

    Raises ProviderConflict where it is to be started again and could not be.
    """
    restart, logs = request.restart_foreground, settings.logs
    environ: dict[str, str] | None = None
    cwd: str | None = None
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(live.pid)
        environ, cwd = process.environ(), process.cwd()
    if restart and environ is None:
        message = f"{live.name}: its environment cannot be read, so it could not be started again as it was"
        raise ProviderConflict(message, [live.name])
    if restart:
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    mask = masker(known_secrets(environ or {}, [str(settings.provider_config)]))
    folder = f"cd {shlex.quote(cwd)} && " if cwd else ""
    return Foreground(
        pid=live.pid,
        started=started(live.pid),
        argv=live.argv,
        cwd=cwd,
        environ=environ if restart else None,
        umask=_umask(live.pid),
        restart=restart,
        log=str(logs / "live-provider.log") if restart else None,
        command=folder + command_line(live.argv, mask),
    )


def _umask(pid: int) -> int:
    """The process's own, where the system tells; else the usual one."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return USUAL_UMASK
