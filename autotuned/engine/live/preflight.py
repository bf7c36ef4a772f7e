"""Whether a run may go on beside what was found on the machine, and what to do where it may not. Pure."""

from __future__ import annotations

from autotuned.core.request import TuneRequest
from autotuned.errors import ProviderConflict
from autotuned.host.find import Found, Process


def conflict(found: Found, request: TuneRequest) -> ProviderConflict | None:
    """The refusal for what was found, with the remedy; None where `request` may go on."""
    terminal = isinstance(found.live, Process)
    stays = terminal and request.scheduled and not request.restart_foreground
    fixed = undrainable(found)
    if not found or (request.drain and fixed is None and not stays):
        return None
    remedy = "stop it yourself, or have it stopped for the run and brought back with --drain"
    if terminal:
        remedy += " --restart-foreground; with --drain alone it stays stopped"
    if found.strangers and (request.drain or found.live is None):
        remedy = f"stop that program, or choose another --port than {request.port}"
    elif found.managed is not None and found.managed.refusal is not None:
        remedy = found.managed.refusal
    elif request.drain and fixed is not None:
        remedy = fixed
    elif stays and request.drain:
        remedy = (
            "nobody would start it again after a scheduled run: permit that with "
            "autotunectl schedule set --drain --restart-foreground"
        )
    names = ", ".join(found.names)
    return ProviderConflict(f"in the way: {names}; {remedy}", found.names)


def undrainable(found: Found) -> str | None:
    """Why a drain cannot clear the way; None when it can."""
    if found.strangers:
        return "a program that is no provider is never drained"
    if found.managed is not None and found.managed.refusal is not None:
        return found.managed.refusal
    if len(found.processes) + (found.managed is not None) > 1:
        return "more than one live provider runs: stop all but one yourself"
    return None
