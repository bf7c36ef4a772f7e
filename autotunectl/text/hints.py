"""What to do next, after a refusal or after a run without a whole recommendation: one line each, mostly a command.

Chosen by codes and kinds, never by sentences. Strings only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotunectl.errors import CallError
from autotuned.shared import wire

AFTER = {
    "interrupted": "autotunectl start --resume {run} --wait goes on with it",
    "budget_exhausted_no_model_selected": "autotunectl start --resume {run} --max-duration SECONDS goes on with it",
    "budget_exhausted_with_partial_recommendation": "autotunectl start --resume {run} --max-duration SECONDS "
    "goes on with it; autotunectl apply --allow-partial takes what there is",
    "no_feasible": "autotunectl logs {run} shows what each candidate printed",
    "pre_warm_integrity_failure": "autotunectl models lists what is here; autotunectl pull MODEL --verify reads it again",
    "internal_error": "autotunectl logs has the traceback, autotunectl bugreport an archive for whoever looks into it",
}
"""What to do after a run without a whole recommendation, by its exit reason."""

OF_CODE: Mapping[int, str] = {
    wire.BUSY: "autotunectl watch, or autotunectl cancel",
    wire.NOT_FOUND: "autotunectl runs",
    wire.RESTORE_OUTSTANDING: "autotunectl provider restore",
    wire.SHUTTING_DOWN: "autotunectl daemon start",
    wire.METHOD_NOT_FOUND: "the agent is older than this client: autotunectl daemon restart",
    wire.INTERNAL_ERROR: "autotunectl logs has the details, autotunectl bugreport an archive of them",
}
"""By code, where it says enough."""

APPLY_REFUSED = {
    "running": "autotunectl watch, then apply",
    "no_recommendation": "autotunectl runs lists those that have one",
    "partial": "autotunectl apply --allow-partial takes what there is",
    "other_machine": "autotunectl start --wait measures this machine; autotunectl apply --force takes it all the same",
    "other_provider": "autotunectl show has the command that serves it",
    "no_backup": "autotunectl apply makes one whenever it changes the file",
    "changed_meanwhile": "close what else writes that file, and try again",
}
"""By the reason in the error's data."""


def after(document: Mapping[str, Any]) -> str | None:
    """What to do after this run."""
    remedy = AFTER.get(document["exit_reason"])
    return remedy and remedy.format(run=document["run_id"])


def hint(error: CallError, command: str | None) -> str:
    """What to do about a refusal of `command`."""
    data = error.data
    match error.code:
        case wire.INVALID_PARAMS if "file" in data:
            return "correct the file; the settings in use stay"
        case wire.INVALID_PARAMS:
            return f"autotunectl {command or 'start'} --help"
        case wire.BUSY if data.get("pull_id"):
            return "autotunectl pull --cancel"
        case wire.PROVIDER_CONFLICT:
            return _conflict(data.get("conflicts") or [], command)
        case wire.APPLY_REFUSED:
            return APPLY_REFUSED.get(str(data.get("reason")), "autotunectl doctor")
        case code:
            return OF_CODE.get(code, OF_CODE[wire.INTERNAL_ERROR])


def _conflict(conflicts: list[str], command: str | None) -> str:
    """A stranger on the port is never stopped for anybody; a live provider is, where that is permitted."""
    command = "schedule set" if command == "schedule" else "start"
    if any(each.startswith("port-held-by") for each in conflicts):
        return "autotunectl start --port PORT with another port"
    if any(each.startswith("foreground-") for each in conflicts):
        return f"autotunectl {command} --drain --restart-foreground; without the second it stays stopped"
    return f"autotunectl {command} --drain"
