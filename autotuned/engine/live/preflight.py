"""What a run has to know of the live provider before it begins: whether it is in the way, what it serves, whether
it is being updated.

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
from autotuned.core.request import TuneRequest
from autotuned.engine.measure import readiness
from autotuned.errors import ConfigError, ProviderConflict
from autotuned.host.find import Found, Managed, Process
from autotuned.host.restore.lease import foreground
from autotuned.providers import binary as programs
from autotuned.providers.server import Binary, listed_in
from autotuned.settings import Settings
from autotuned.shared.knobs import TABLE, Knobs

LIVE = "live"
"""The candidate that stands for whatever the live provider serves."""
FIELD, ARTIFACT, MODEL = "candidate_models", "model_artifact_path", "model"
LEASE_STATUS = ("lifecycle-lease", "status", "--expected-kind", "maintenance")
LEASE_TIMEOUT_S, POLL_S = 5.0, 1.0


def conflict(found: Found, request: TuneRequest, *, drains: bool = True) -> ProviderConflict | None:
    """The refusal for what was found, with the remedy; None where `request` may go on.

    What never `drains` offers no drain.
    """
    terminal = isinstance(found.live, Process)
    stays = terminal and request.scheduled and not request.restart_foreground
    fixed = undrainable(found)
    if not found or (request.drain and fixed is None and not stays):
        return None
    remedy, why = "stop it yourself", dict[str, str]()
    if drains:
        remedy += ", or have it stopped for the run and brought back with --drain"
    if drains and terminal:
        remedy += " --restart-foreground; with --drain alone it stays stopped"
    if found.strangers and (request.drain or found.live is None):
        remedy = f"stop that program, or choose another --port than {request.port}"
    elif found.managed is not None and found.managed.refusal is not None:
        remedy, why = found.managed.refusal, {"reason": "undrainable"}
    elif fixed is not None and not found.strangers:
        remedy = fixed
    elif stays and request.drain:
        remedy = (
            "nobody would start it again after a scheduled run: permit that with "
            "autotunectl schedule set --drain --restart-foreground"
        )
    names = ", ".join(found.names)
    return ProviderConflict(f"in the way: {names}; {remedy}", found.names, **why)


def undrainable(found: Found) -> str | None:
    """Why a drain cannot clear the way; None when it can."""
    if found.strangers:
        return "a program that is no provider is never drained"
    if found.managed is not None and found.managed.refusal is not None:
        return found.managed.refusal
    if len(found.processes) + (found.managed is not None) > 1:
        return "more than one live provider runs: stop all but one yourself"
    return None


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
        model = next(iter(listed_in(listing)), None)
    if model is None:
        rule = (
            f"cannot be known: {live.name} tells its model neither in its command line nor on port {live.port}; "
            "start it with its port in the command line, or name the model instead"
        )
        raise ConfigError(FIELD, LIVE, rule)
    return model


async def lists_another(live: Managed | Process, model: str) -> list[str]:
    """That the live server lists only models which neither its command line nor a recipe for `model` names."""
    listing = list(listed_in(await readiness.listing(live.port)))
    known = {
        name for word in (*live.argv, model) for name in (word, Path(word).name, Path(word).stem)
    }
    if not listing or known.intersection(listing):
        return []
    return [f"it lists {', '.join(listing[:3])} as its models"]


def recipe(found: Found, config: Path, context: int) -> tuple[str, Knobs] | None:
    """The model and the knobs by which the live provider's configuration has it serve; None where it tells neither.

    `context`: what stands for a limit that it does not have.
    """
    if found.live is None:
        return None
    values = _values(Path(option(found.live.argv, "--config") or config))
    kv, batch, limit = (values.get(knob.published) for knob in TABLE)
    model = values.get(MODEL)
    if not isinstance(model, str) or not (kv or batch or limit):
        return None
    numbers = [value if isinstance(value, int) else None for value in (kv, batch, limit)]
    return model, Knobs(numbers[0], numbers[1] or 1, max(numbers[2] or context, context))


def _configured(path: Path) -> str | None:
    values = _values(path)
    named = (values.get(key) for key in (ARTIFACT, MODEL))
    return next((value for value in named if isinstance(value, str) and value), None)


def _values(path: Path) -> dict[str, reader.Scalar]:
    """The single values of a configuration; nothing of one that cannot be read."""
    try:
        text = path.expanduser().read_bytes().decode("utf-8")
    except (OSError, ValueError, RuntimeError):
        return {}
    file = reader.read(text.removeprefix(reader.BOM))
    if isinstance(file, reader.Refused):
        return {}
    read = ((entry.key, file.scalar(entry.value)) for entry in file.entries)
    return {key: value for key, value in read if key and not isinstance(value, reader.Refused)}


def doubts(found: Found, request: TuneRequest, binary: Binary, settings: Settings) -> list[str]:
    """What a drain of `found` would leave behind, and what does not carry over to it."""
    live, left = found.live, []
    if isinstance(live, Process) and request.drain and not request.restart_foreground:
        left.append(foreground(live, request, settings).stays_stopped)
    return [*left, *_other_program(found, binary)]


def _other_program(found: Found, binary: Binary) -> list[str]:
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
