"""The public documents of runs and trials, made of the store's rows: one place builds each of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from autotuned.core import load, noise, quality
from autotuned.core import result as public
from autotuned.core.model import Trial
from autotuned.core.pipeline import best_so_far
from autotuned.documents.result import ExitReason, ResultDocument
from autotuned.documents.run import BestDocument, RunDocument, SummaryDocument
from autotuned.documents.trial import TrialDocument
from autotuned.engine.run.runner import Runner
from autotuned.shared import wire
from autotuned.store.runs import Details, RunRow


def result(
    row: RunRow, details: Details, history: Sequence[Trial], db_path: str, *, running: bool
) -> ResultDocument:
    """The public document of a run, made of what is known so far."""
    error = details.get("error")
    if not running and row.ended_at_utc is None:
        error = {"code": row.exit_reason, "message": "the agent ended before this run did"}
    answer = row.recommendation_json if details else None  # a prototype's may be anything
    own = noise.of_run(history) if row.purpose == "search" else {}
    document: ResultDocument = {
        "spec_version": wire.SPEC_VERSION,
        "run_id": row.run_id,
        "started_at": row.started_at_utc,
        "ended_at": row.ended_at_utc,
        "machine": {
            "ram_gb": row.machine_ram_gb,
            "chip": row.machine_chip,
            "os_version": row.machine_os_version,
            "binary_version": row.binary_version,
        },
        "inputs": {
            "target_context": row.target_context,
            "candidate_models": json.loads(row.candidate_models_json),
            "stage1_replicates": row.stage1_replicates,
            "stage2_replicates": row.stage2_replicates,
            "gate_ttft_ms": row.gate_ttft_ms,
            "tps_tie_epsilon": row.tps_tie_epsilon,
        },
        "recommendation": json.loads(answer) if answer else None,
        "alternates": details.get("alternates", []),
        "infeasible": public.infeasible(history),
        "recipe_hash": row.recipe_hash,
        "db_path": db_path,
        "exit_reason": ExitReason(row.exit_reason),
        "state": "running" if running else "finished",
        "trigger": details.get("trigger", "manual"),
        "provider": details.get("provider"),
        "warnings": details.get("warnings", []),
        "error": error,
        "applied": details.get("applied"),
        "live_model": details.get("live_model"),
        "left_stopped": details.get("left_stopped"),
        "timings": public.timings(history, details.get("total_s")),
        "stage2": public.cells(history),
        "noise": {**own, **details.get("noise", {})},
    }
    compared = quality.document(details.get("request", {}).get("quality", "off"), history)
    if compared is not None:
        document["quality"] = compared
    if "profiles" in details:
        document["profiles"] = details["profiles"]
    if "check" in details:
        document["check"] = details["check"]
    if "confirmation" in details:
        document["confirmation"] = details["confirmation"]
    if (concurrency := details.get("request", {}).get("concurrency", 1)) > 1:
        document["inputs"]["concurrency"] = concurrency
    if "calibration" in details:
        document["calibration"] = details["calibration"]
    if "search" in details:
        document["search"] = details["search"]
        if "untried" in details:
            document["search"]["untried"] = details["untried"]
    return document


def run_document(
    row: RunRow, details: Details, history: Sequence[Trial], runner: Runner | None
) -> RunDocument:
    """The run document; `runner` is the one in progress, None for a run that has ended."""
    return {
        **summary(row, running=runner is not None),
        "phase": "finished" if runner is None else runner.progress.phase,
        "progress": None if runner is None else runner.progress.document(),
        "best": _best(row, details, history),
        "infeasible": public.infeasible(history),
        "warnings": [
            *details.get("warnings", ()),
            *(runner.warnings if runner is not None else ()),
        ],
        "trigger": details.get("trigger", "manual"),
        "provider": details.get("provider"),
        "cancelling": runner is not None and runner.cancelled,
    }


def _best(row: RunRow, details: Details, history: Sequence[Trial]) -> BestDocument | None:
    """The best cell so far; once a run has ended what it recommends, which a calibration may have changed."""
    if row.recommendation_json and details:  # a prototype's may be anything
        answer: BestDocument = json.loads(row.recommendation_json)
        model, knobs = answer["model"], answer["knobs"]
        tps, ttft = answer["tps_median"], answer["ttft_p95_ms"]
    else:
        best = best_so_far(history)
        if best is None or best.knobs is None:
            return None
        model, knobs = best.model, public.knobs_document(best.knobs)
        tps, ttft = best.tps_median, best.ttft_p95_ms
    return {"model": model, "knobs": knobs, "tps_median": tps, "ttft_p95_ms": ttft}


def summary(row: RunRow, *, running: bool) -> SummaryDocument:
    answer = json.loads(row.recommendation_json) if row.recommendation_json else {}
    return {
        "run_id": row.run_id,
        "state": "running" if running else "finished",
        "exit_reason": None if running else ExitReason(row.exit_reason),
        "started_at": row.started_at_utc,
        "ended_at": row.ended_at_utc,
        "target_context": row.target_context,
        "candidates": len(json.loads(row.candidate_models_json)),
        "model": answer.get("model"),
        "tps_median": answer.get("tps_median"),
        "ttft_p95_ms": answer.get("ttft_p95_ms"),
        "partial": bool(answer.get("partial", False)),
        "recipe_hash": row.recipe_hash,
        "applied": bool(row.applied),
    }


def trial_document(trial: Trial) -> TrialDocument:
    knobs = trial.knobs
    return {
        **load.point_document(trial),
        "stage": trial.stage,
        "model": trial.model,
        "rank": trial.rank,
        "knobs": None if knobs is None else public.knobs_document(knobs),
        "fits": trial.fits,
        "kept": trial.kept,
        "n_err": trial.n_err,
        "failure": None if trial.failure is None else trial.failure.kind.value,
        "reason": None if trial.failure is None else trial.failure.reason,
        "tps_median": trial.tps_median,
        "ttft_p95_ms": trial.ttft_p95_ms,
        "load_ms": trial.load_ms,
        "peak_rss_bytes": trial.strain.peak_rss_bytes,
        "worst_pressure": trial.strain.worst_pressure,
        "nice": trial.strain.nice,
        "priority": trial.strain.priority,
        "conditions": public.conditions_document(trial.conditions),
        "spent": dataclasses.asdict(trial.spent),
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "samples": [public.sample_document(replicate) for replicate in trial.replicates],
    }
