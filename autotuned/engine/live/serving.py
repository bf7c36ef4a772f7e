"""What the live provider is doing now: which model it serves, and whether it is being updated.

Read from its command line, its configuration and its own answers; where none tells, nothing is assumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from autotuned.core.command_line import Commands, names_program, option, program
from autotuned.core.config import reader
from autotuned.core.lease import Foreground, Lease
from autotuned.engine.measure import readiness
from autotuned.errors import ConfigError
from autotuned.host.find import Found, Managed
from autotuned.providers import binary as programs
from autotuned.providers import naming
from autotuned.providers.interface import Binary

LIVE = "live"
"""The candidate that stands for whatever the live provider serves."""
FIELD, ARTIFACT, MODEL = "candidate_models", "model_artifact_path", "model"
LEASE_STATUS = ("lifecycle-lease", "status", "--expected-kind", "maintenance")
LEASE_TIMEOUT_S, POLL_S = 5.0, 1.0


async def served(found: Found, config: Path, *, configured: bool) -> str:
    """The model that runs now, as a candidate: its weights' path where that is given, else its id.

    `configured`: this kind of server reads its model from a configuration, `config` where its command line
    names none. Raises ConfigError where nothing serves, or nobody tells what.
    """
    live = found.live
    if live is None or (isinstance(live, Managed) and not live.job.running):
        rule = "stands for what the live provider serves now, and no live provider runs"
        raise ConfigError(FIELD, LIVE, rule)
    model = option(live.argv, "--model") or option(live.argv, "-m")
    if model is None and configured:
        model = _configured(Path(option(live.argv, "--config") or config))
    if model is None:
        listing = await readiness.listing(live.port)
        model = next(iter(naming.listed(listing)), None)
    if model is None:
        rule = f"cannot be known: {live.name} tells its model neither in its command line nor on port {live.port}"
        raise ConfigError(FIELD, LIVE, rule)
    return model


def _configured(path: Path) -> str | None:
    try:
        text = path.expanduser().read_bytes().decode("utf-8")
    except (OSError, ValueError, RuntimeError):
        return None
    file = reader.read(text.removeprefix(reader.BOM))
    if isinstance(file, reader.Refused):
        return None
    for key in (ARTIFACT, MODEL):
        entry = file.named(key)
        value = None if entry is None else file.scalar(entry.value)
        if isinstance(value, str) and value:
            return value
    return None


def other_program(found: Found, binary: Binary) -> list[str]:
    """That the candidates run another program than the live provider, where that is so."""
    words = program(found.live.argv) if found.live is not None else ()
    if not words or not Path(words[0]).is_absolute():
        return []
    measured = Path(binary.command[0])
    with contextlib.suppress(OSError):
        if measured.samefile(words[0]):
            return []
    version = f"{measured} ({binary.version})"
    return [f"the candidates run {version}, the live provider runs {words[0]}"]


async def update_over(
    lease: Lease,
    commands: Commands,
    environ: Mapping[str, str],
    grace_s: float,
    cancelled: Callable[[], bool],
) -> str | None:
    """Wait for an update of what is to be stopped; None once there is none, else that it goes on.

    `commands` are those of the server that knows maintenance; another one is not asked about it.
    """
    deadline = time.monotonic() + grace_s
    while True:
        update = await _update(lease, commands, environ)
        if update is None or cancelled():
            return None
        if time.monotonic() >= deadline:
            return (
                f"{lease.target.name} is being updated ({update}), which has not ended within the "
                f"drain grace of {grace_s:g} s: nothing was stopped; start again once it has ended"
            )
        await asyncio.sleep(min(POLL_S, grace_s))


async def _update(lease: Lease, commands: Commands, environ: Mapping[str, str]) -> str | None:
    """What shows that the live provider is being updated now; None where nothing does."""
    home = Path(environ.get("HOME") or Path.home())
    pending = home / ".local" / "share" / "macprovider" / "autoupdate" / "pending.json"
    if pending.exists():
        return str(pending)
    target = lease.target
    if isinstance(target, Foreground):
        name = next(iter(program(target.argv)), None)
    else:
        name = target.program
    if name is None or not names_program([name], {words[0] for words in commands}):
        return None
    answer = await programs.ask([name, *LEASE_STATUS], environ, timeout_s=LEASE_TIMEOUT_S)
    return "its maintenance lease" if answer.code == 0 else None
