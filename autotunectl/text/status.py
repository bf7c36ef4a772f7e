"""A run in progress, and all else that `status` shows on one screen: the agent, the live server, the recipe. Strings only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotunectl.text import layout, plan, provider, result
from autotunectl.text.layout import count, duration, number, short, size, transfer
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
        lines.append(f"schedule  {plan.schedule_line(document['schedule'])}")
    pull = document.get("pull")
    if pull:
        doing = transfer(pull["progress"]) or "asking the hub"
        lines.append(f"pull      {pull['model']}: {doing}")
    lines += [
        f"database  begun anew: the former one was damaged, see {path}; autotunectl doctor --acknowledge"
        for path in document.get("set_aside", ())
    ]
    if document.get("quarantine"):
        counted = count(len(document["quarantine"]), "configuration")
        lines.append(f"crashed   {counted} took the machine down: autotunectl quarantine")
    if refused := document.get("refused"):
        lines.append(f"refused   {layout.local(refused['at'])}: {refused['message']}")
    if run is None:
        return "\n".join([*lines, "run       none yet", "next      autotunectl start --wait"])
    return "\n".join([*lines, *_run(run, error)])


def brief(document: Mapping[str, Any]) -> layout.Table:
    """What a machine does, on one line below its heading."""
    run = document["run"] or {"run_id": "-", "phase": "-"}
    best = run.get("best") or {"model": "-", "tps_median": None}
    doing = run.get("exit_reason") or run["phase"]
    row = (run["run_id"], doing, short(best["model"]), number(best["tps_median"], "", 2))
    return [("RUN", "STATE", "MODEL", "TOK/S"), row]


def _lease(document: StatusDocument) -> list[str]:
    lease = document.get("lease")
    if lease is None or provider.owed(document):
        return []
    return [f"lease     run {lease['run_id']} has stopped it and brings it back at its end"]


def _run(run: RunDocument, error: str | None) -> list[str]:
    asked = f"{count(run['candidates'], 'candidate')}, {run['target_context']} tokens"
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
        found = f"{number(best['tps_median'], ' tok/s', 2)}, TTFT p95 {number(best['ttft_p95_ms'], ' ms', 0)}"
        lines += [f"best      {best['model']}: {found}", f"          {knobs.flags(best['knobs'])}"]
    failed = run.get("infeasible") or []
    lines += [
        f"failed    {short(each['model'])}: {each['reason']}" for each in failed[:FAILED_SHOWN]
    ]
    if len(failed) > FAILED_SHOWN:
        lines.append(f"failed    {len(failed) - FAILED_SHOWN} more: autotunectl show")
    lines += [f"warning   {explained(warning)}" for warning in run.get("warnings", ())]
    return [*lines, f"next      {_next(run)}"]


def _progress(run: RunDocument) -> list[str]:
    lines = [f"phase     {run['phase']}: {doing(run)}"]
    progress = run.get("progress")
    if progress:
        lines.append(
            f"progress  {layout.bar(progress['fraction'], ROOM)} {progress['fraction']:.0%}, elapsed {duration(progress['elapsed_s'])}, "
            f"ETA {layout.eta(progress)}, budget left {duration(progress['budget_left_s'])}"
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
    tried = any(warning.startswith("rolled back") for warning in run.get("warnings", ()))
    if run.get("applied") or tried or run.get("provider") not in (None, "macprovider"):
        return "autotunectl show"
    return "autotunectl show, autotunectl apply"


STEPS = {
    "pause": "cooling down",
    "prewarm": "checking the weights",
    "load": "loading",
    "warm": "warming up",
    "measure": "asking",
    "quality": "comparing answers",
    "stop": "stopping",
}
"""The parts of a trial, as what the candidate does."""


def step(run: Mapping[str, Any]) -> str:
    """What the candidate does now: `loading`; empty between two."""
    return STEPS.get((run.get("progress") or {}).get("step") or "", "")


def place(run: Mapping[str, Any]) -> tuple[str, str]:
    """Where a run is: `candidate 1 of 3` or `cell 2 of 6`, and the model."""
    progress = run.get("progress") or {}
    candidate, cell = progress.get("candidate") or {}, progress.get("cell") or {}
    where = f"candidate {candidate.get('index', '-')} of {candidate.get('total', '-')}"
    if progress.get("stage") == 3:
        where = bracket(progress.get("calibration") or {})
    elif progress.get("stage") == 2:
        where = f"cell {cell.get('index', '-')} of {cell.get('total', '-')}"
        if "space" in cell:
            where += f", out of {cell['space']}"
    if "context" in progress:
        where += f" at {progress['context']['tokens']:,} tokens"
    return where, short(candidate.get("model") or "-")


def doing(run: Mapping[str, Any]) -> str:
    """What a run does at this moment, in a few words."""
    progress = run.get("progress") or {}
    replicate = progress.get("replicate") or {}
    where = ", ".join(place(run))
    moving = transfer(progress.get("prewarm"))
    if moving is not None:
        return f"{where}, {moving}"
    where = ", ".join(filter(None, (where, step(run))))
    if not replicate.get("total"):
        return where
    return f"{where}, replicate {replicate.get('index', 0)} of {replicate['total']}"


def event(document: Mapping[str, Any]) -> str | None:  # noqa: C901 - one line a type of event
    """One plain line for an event; None for what is too small to tell."""
    kind = document["type"]
    match kind:
        case "run.started":
            candidates, cells = len(document["candidates"]), document["cells"]
            searched = f" at most, out of {document['space']}" if "space" in document else ""
            plan = f"{count(candidates, 'candidate')}, {count(cells, 'cell')}{searched}"
            return f"run {document['run_id']}: {plan}"
        case "phase":
            return f"phase: {document['phase']}"
        case "prewarm.progress":
            return f"{short(document['model'])}: {transfer(document)}"
        case "prewarm.done" if document.get("fetched_bytes"):
            return f"fetched {short(document['model'])}: {size(document['fetched_bytes'])}"
        case "provider.starting":
            return f"starting {_tried(document)}"
        case "provider.ready":
            return f"ready after {number(document.get('ready_ms'), ' ms', 0)}"
        case "replicate" if document.get("error"):
            return f"  request {document['index']} of {document['total']}: {document['error']}"
        case "replicate":
            figures = f"TTFT {number(document['ttft_ms'], ' ms', 0)}, {number(document['tps'], ' tok/s', 2)}"
            return f"  request {document['index']} of {document['total']}: {figures}"
        case "trial" if not document["fits"]:
            verdict = "cut off" if document["reason"] == "interrupted" else "rejected"
            return f"{verdict} {_tried(document)}: {document['reason']}{_left(document)}"
        case "trial":
            kept = ", best so far" if document["kept"] else _left(document)
            return (
                f"feasible {_tried(document)}: {number(document['tps_median'], ' tok/s', 2)}{kept}"
            )
        case "budget.warning":
            return f"budget nearly used up: {duration(document['left_s'])} left"
        case "drain.begun" | "drain.done" | "restore.begun" | "restore.done":
            return provider.event(document)
        case "log":
            return f"{document.get('level', 'note')}: {document.get('message', '')}"
        case "applied" if not (document["changed"] or document["backup_path"]):
            return f"nothing to write to {document['config_path']}: it is so already"
        case "applied":
            kept = f", backup at {document['backup_path']}" if document.get("backup_path") else ""
            return f"applied to {document['config_path']}{kept}"
        case "run.finished":
            return f"finished: {document['exit_reason']}"
        case _:
            return None


def _tried(document: Mapping[str, Any]) -> str:
    """The candidate of a probe, or the number and knobs of a cell."""
    if document.get("calibrates") == "context":
        return f"{document['context']:,} tokens"
    if document.get("calibrates") == "concurrency":
        return f"{document.get('concurrency', 1)} at once at {document['context']:,} tokens"
    at = f" at {document['context']:,} tokens" if document.get("context") else ""
    if document.get("cell") is None:
        return short(document.get("model") or "") + at
    return f"cell {document['cell']}: {knobs.words(document.get('knobs') or {})}{at}"


def _left(document: Mapping[str, Any]) -> str:
    """Of a point, the bracket that is left after it."""
    found = document.get("calibration")
    return f" ({bracket(found)})" if found else ""


def bracket(calibration: Mapping[str, Any]) -> str:
    """How far a calibration is: `context: 24,000 passes, 32,000 does not`."""
    if not calibration:
        return "calibrating"
    passes, fails = calibration.get("passes"), calibration.get("fails")
    known = [
        *([] if passes is None else [f"{passes:,} passes"]),
        *([] if fails is None else [f"{fails:,} does not"]),
    ]
    return f"{calibration['calibrates']}: {', '.join(known)}"
