"""What `status` shows: the agent, the live server, whether the recipe holds, and the run, on one screen. Strings only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotunectl.text import layout, provider, result
from autotuned.shared import knobs
from autotuned.shared.text import explained

if TYPE_CHECKING:
    from autotuned.documents.run import RunDocument, StatusDocument

ROOM = 24
FAILED_SHOWN = 5


def status(document: StatusDocument, error: str | None = None) -> str:
    """The screen. `error`: why the run made no recommendation, where it made none."""
    agent, run = document["daemon"], document.get("run")
    lines = [
        *provider.warning(document),
        f"agent     version {agent['version']}, pid {agent['pid']}, since {layout.local(agent['started_at'])}",
        *(provider.live(document) or ["live      no live provider runs"]),
        *_lease(document),
    ]
    if stale := document.get("stale"):
        lines.append(f"recipe    {result.staleness(stale)}")
    if document.get("schedule"):
        lines.append(f"schedule  {result.schedule_line(document['schedule'])}")
    pull = document.get("pull")
    if pull:
        doing = layout.transfer(pull["progress"]) or "asking the hub"
        lines.append(f"pull      {pull['model']}: {doing}")
    lines += [
        f"database  begun anew: the former one was damaged, see {path}; autotunectl doctor --acknowledge"
        for path in document.get("set_aside", ())
    ]
    if document.get("quarantine"):
        counted = layout.count(len(document["quarantine"]), "configuration")
        lines.append(f"crashed   {counted} took the machine down: autotunectl quarantine")
    if refused := document.get("refused"):
        lines.append(f"refused   {layout.local(refused['at'])}: {refused['message']}")
    if run is None:
        return "\n".join([*lines, "run       none yet", "next      autotunectl start --wait"])
    return "\n".join([*lines, *_run(run, error)])


def _lease(document: StatusDocument) -> list[str]:
    lease = document.get("lease")
    if lease is None or provider.owed(document):
        return []
    return [f"lease     run {lease['run_id']} has stopped it and brings it back at its end"]


def _run(run: RunDocument, error: str | None) -> list[str]:
    asked = f"{layout.count(run['candidates'], 'candidate')}, {run['target_context']} tokens"
    if run["state"] == "running":
        state = "cancelling" if run.get("cancelling") else "running"
    else:
        ended = run.get("ended_at")
        state = f"{run['exit_reason']}{', ' + layout.local(ended) if ended else ''}"
    lines = [f"run       {run['run_id']}: {state} ({asked})"]
    if run["state"] == "running":
        lines += _progress(run)
    elif error:
        lines.append(f"why       {error}")
    best = run.get("best")
    if best:
        found = f"{layout.number(best['tps_median'], ' tok/s', 2)}, TTFT p95 {layout.number(best['ttft_p95_ms'], ' ms', 0)}"
        lines += [
            f"best      {best['model']}: {found}",
            f"          {knobs.flags(best['knobs'])}",
        ]
    failed = run.get("infeasible") or []
    lines += [
        f"failed    {layout.short(each['model'])}: {each['reason']}"
        for each in failed[:FAILED_SHOWN]
    ]
    if len(failed) > FAILED_SHOWN:
        lines.append(f"failed    {len(failed) - FAILED_SHOWN} more: autotunectl show")
    lines += [f"warning   {explained(warning)}" for warning in run.get("warnings", ())]
    return [*lines, f"next      {_next(run)}"]


def _progress(run: RunDocument) -> list[str]:
    lines = [f"phase     {run['phase']}: {result.doing(run)}"]
    progress = run.get("progress")
    if progress:
        lines.append(
            f"progress  {layout.bar(progress['fraction'], ROOM)} {progress['fraction']:.0%}, elapsed {layout.duration(progress['elapsed_s'])}, "
            f"ETA {layout.eta(progress)}, budget left {layout.duration(progress['budget_left_s'])}"
        )
    return lines


def _next(run: RunDocument) -> str:
    """The commands that one most often wants now."""
    if run["state"] == "running":
        return "autotunectl watch, autotunectl cancel"
    if run["exit_reason"] == "interrupted":
        return f"autotunectl start --resume {run['run_id']} --wait"
    if run.get("best") is None:
        return f"autotunectl show {run['run_id']}, autotunectl doctor"
    if run.get("applied") or run.get("provider") not in (None, "macprovider"):
        return "autotunectl show"
    return "autotunectl show, autotunectl apply"
