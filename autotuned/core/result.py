"""What comes out of a run: the public document, the reasons in words, the recipe hash.

The document is frozen: fields are added, never changed or removed. Pure.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Sequence
from typing import Any, cast

import rfc8785
from pydantic import TypeAdapter

from autotuned.core import load, search
from autotuned.core.candidates import alternates, smallest_first
from autotuned.core.model import (
    STAGE_CLIMB,
    STAGE_SELECTION,
    Conditions,
    FailureKind,
    MachineFacts,
    Replicate,
    Trial,
)
from autotuned.core.pipeline import Finish, of_part
from autotuned.core.plan import Plan
from autotuned.documents.result import (
    CellDocument,
    ErrorDocument,
    ExitReason,
    InfeasibleDocument,
    ProfileDocument,
    RecommendationDocument,
    ResultDocument,
    SearchDocument,
)
from autotuned.documents.run import CellKnobs
from autotuned.documents.trial import ConditionsDocument, KnobsDocument, SampleDocument
from autotuned.shared.knobs import Knobs


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the result document (draft 2020-12).

    Open: a later version may add fields, so a reader must pass over those that it does not know.
    """
    schema = TypeAdapter(ResultDocument).json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        part.pop("additionalProperties", None)
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, **schema, "title": "Result of one run of autotuned"}


def recipe_hash(
    facts: MachineFacts,
    binary_version: str,
    candidate_models: Sequence[str],
    target_context: int,
    model: str,
    knobs: Knobs,
) -> str:
    """`sha256:` and the SHA-256 of the recipe's canonical JSON (RFC 8785): the same recipe, the same hash."""
    recipe: dict[str, Any] = {
        "binary_version": binary_version,
        "candidate_models": list(candidate_models),
        "chip": facts.chip,
        "knobs": knobs.published(),
        "model": model,
        "ram_gb": facts.ram_gb,
        "target_context": target_context,
    }
    return "sha256:" + hashlib.sha256(rfc8785.dumps(recipe)).hexdigest()


def digest(
    facts: MachineFacts,
    binary_version: str,
    plan: Plan,
    finish: Finish,
    answer: RecommendationDocument | None,
) -> str | None:
    if answer is None or finish.recipe is None:
        return None
    models = [each.model for each in plan.candidates]
    context = plan.request.target_context
    return recipe_hash(facts, binary_version, models, context, answer["model"], finish.recipe)


def profile(
    run_id: str,
    facts: MachineFacts,
    binary_version: str,
    plan: Plan,
    finish: Finish,
    history: Sequence[Trial],
) -> ProfileDocument:
    """The answer for one target context out of the `history` of all."""
    answer = recommend(run_id, plan, finish)
    error = explain(plan, of_part(plan, history), finish)
    return {
        "target_context": plan.request.target_context,
        "recommendation": answer,
        "recipe_hash": digest(facts, binary_version, plan, finish, answer),
        "reason": error["message"] if answer is None and error is not None else None,
    }


def search_document(plan: Plan) -> SearchDocument:
    return {
        "kind": "grid" if plan.trials is None else "tpe",
        "cells": len(plan.cells),
        "trials": plan.most,
        "auto": search.trials_for(len(plan.cells)),
        "left_out": plan.left_out,
        "seed": plan.seed,
    }


def untried(plan: Plan, history: Sequence[Trial]) -> list[KnobsDocument]:
    tried = {trial.knobs for trial in history}
    return [knobs_document(knobs) for knobs in plan.cells if knobs not in tried]


def cell_knobs(knobs: Knobs) -> CellKnobs:
    """Knobs as flags name them."""
    return cast("CellKnobs", knobs.named())


def knobs_document(knobs: Knobs) -> KnobsDocument:
    return cast("KnobsDocument", knobs.published())


NO_JOIN_NOTE = (
    "it serves on this machine alone (--no-join): a serve that joins takes its model from the "
    "configuration and refuses another one on its command line; to join with this recipe, apply it "
    "and start the provider's own job"
)


def recommend(run_id: str, plan: Plan, finish: Finish) -> RecommendationDocument | None:
    """The recommendation that a finished search comes to; None where no cell was kept."""
    best, final, knobs = finish.best, finish.final, finish.recipe
    if (
        best is None
        or final is None
        or knobs is None
        or best.tps_median is None
        or best.ttft_p95_ms is None
    ):
        return None
    # A server out of a wheel is started by a file of ours, which nobody is told to call.
    ours = any("/autotuned/providers/" in word for word in final.serve_argv[:3])
    answer: RecommendationDocument = {
        "model": best.model,
        "target_context": plan.request.target_context,
        "knobs": knobs_document(knobs),
        "tps_median": best.tps_median,
        "ttft_p95_ms": best.ttft_p95_ms,
        "replicates": best.waves_n,
        "serve_command": f"autotunectl serve {run_id}" if ours else shlex.join(final.serve_argv),
    }
    if "--no-join" in final.serve_argv:
        answer["serve_note"] = NO_JOIN_NOTE
    if finish.partial:
        answer["partial"] = True
    return answer


def served(answer: RecommendationDocument, history: Sequence[Trial]) -> tuple[str, ...]:
    """The program and its arguments that serve a recommendation, whatever a person is told to call."""
    argv = tuple(shlex.split(answer["serve_command"]))
    if argv[:1] != ("autotunectl",):
        return argv
    recipe = answer["model"], answer["knobs"]
    return next(
        trial.serve_argv
        for trial in reversed(history)
        if trial.knobs is not None and (trial.model, knobs_document(trial.knobs)) == recipe
    )


def alternates_of(plan: Plan, history: Sequence[Trial], finish: Finish) -> list[str]:
    """The names of smaller candidates that were not probed; empty where none was chosen."""
    if finish.chosen is None or finish.best is None:
        return []
    probed = [trial.model for trial in history if trial.stage == STAGE_SELECTION]
    return list(alternates(plan.candidates, finish.chosen, probed))


def infeasible(history: Sequence[Trial]) -> list[InfeasibleDocument]:
    return [
        {"model": trial.model, "rank": trial.rank, "reason": trial.failure.reason}
        for trial in history
        if trial.stage == STAGE_SELECTION and trial.failure is not None
    ]


def explain(plan: Plan, history: Sequence[Trial], finish: Finish) -> ErrorDocument | None:
    """Why a run did not end `ok`, for a person; None where it did."""
    request = plan.request
    detail: list[str] | None = None
    match finish.exit_reason:
        case ExitReason.NO_FEASIBLE if finish.chosen is None:
            reasons = {entry["model"]: entry["reason"] for entry in infeasible(history)}
            models = [each.model for each in smallest_first(plan.candidates)]
            detail = [f"{model}: {reasons[model]}" for model in models if model in reasons]
            kinds = {trial.failure.kind for trial in history if trial.failure is not None}
            remedy = "try a smaller --target-context, or other --candidate-models"
            if kinds == {FailureKind.TRANSIENT}:  # a smaller context would not be fetched either
                remedy = "check the network and the names, or give models that are on this disk"
            message = (
                f"{detail[0] if detail else 'no candidate was tried'}; no candidate is feasible at "
                f"{request.target_context} tokens: {remedy}"
            )
        case ExitReason.NO_FEASIBLE:
            detail = [
                f"{trial.knobs or trial.model}: {trial.failure.reason}"
                for trial in _cells(history)
                if trial.failure
            ]
            message = (
                f"{detail[0] if detail else 'no cell was measured'}; no setting of {finish.chosen.model if finish.chosen else ''} passed the gate at "
                f"{request.target_context} tokens: try a smaller --target-context, or other --candidate-models"
            )
        case ExitReason.BUDGET_NONE:
            message = (
                f"the budget of {request.max_duration:g} s ran out before there was a best cell: "
                "raise --max-duration, or trim the list of candidates"
            )
        case ExitReason.BUDGET_PARTIAL:
            where = f"in cell {len(_cells(history))} of {plan.most}"
            if history[-1].calibrates is not None:
                where = f"while the {history[-1].calibrates} was calibrated"
            message = (
                f"the budget of {request.max_duration:g} s ran out {where}: "
                "the best so far is given; raise --max-duration for the rest"
            )
        case ExitReason.INTERRUPTED:
            message = "the run was cancelled" + (
                ": the best cell so far is given" if finish.best else ""
            )
        case ExitReason.INTEGRITY:
            failures = ((trial.model, trial.failure) for trial in history if trial.failure)
            model, failure = next(f for f in failures if f[1].kind == FailureKind.INTEGRITY)
            message = f"{model}: {failure.reason}"
        case ExitReason.INTERNAL_ERROR:
            message = (
                "a bug ended the run; the traceback is in the log and in the last trial's notes"
            )
        case _:
            return None
    return {"code": finish.exit_reason, "message": message, "detail": detail}


def cells(history: Sequence[Trial]) -> list[CellDocument]:
    return [
        {
            **load.document(trial),
            "knobs": knobs_document(trial.knobs),
            "tps_median": trial.tps_median,
            "ttft_p95_ms": trial.ttft_p95_ms,
            "decode_tps": _mean(replicate.decode_tps for replicate in trial.replicates),
            "prefill_tps": _mean(replicate.prefill_tps for replicate in trial.replicates),
            "load_ms": trial.load_ms,
            "peak_rss_bytes": trial.strain.peak_rss_bytes,
            "fits": trial.fits,
            "kept": trial.kept,
            "reason": trial.failure.reason if trial.failure else trial.vetoed,
            "conditions": conditions_document(trial.conditions),
            "samples": [sample_document(replicate) for replicate in trial.replicates],
        }
        for trial in _cells(history)
        if trial.knobs is not None
    ]


def timings(history: Sequence[Trial], total_s: float | None) -> dict[str, float]:
    """Where the time went, in seconds: loading, requests, all."""
    loading = sum(trial.load_ms or 0.0 for trial in history) / 1000
    waves = (wave for trial in history for wave in load.waves(trial.replicates))
    requests = sum(max(one.total_ms or 0.0 for one in wave) for wave in waves) / 1000
    spent = {"load_s": round(loading, 3), "requests_s": round(requests, 3)}
    return spent if total_s is None else {**spent, "total_s": round(total_s, 3)}


def _cells(history: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in history if trial.stage == STAGE_CLIMB]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def conditions_document(conditions: Conditions) -> ConditionsDocument:
    return {
        "power_source": conditions.power_source,
        "low_power": conditions.low_power,
        "load_average": conditions.load_average,
        "others_share": conditions.others_share,
        "busiest": list(conditions.busiest),
    }


def sample_document(replicate: Replicate) -> SampleDocument:
    sample: SampleDocument = {
        "error": replicate.error,
        "ttft_ms": replicate.ttft_ms,
        "tps": replicate.tps,
        "decode_tps": replicate.decode_tps,
        "prefill_tps": replicate.prefill_tps,
        "total_ms": replicate.total_ms,
        "prompt_tokens": replicate.prompt_tokens,
        "completion_tokens": replicate.completion_tokens,
        "cached_tokens": replicate.cached_tokens,
        "leaked_token": replicate.leaked_token,
        "remarks": list(replicate.remarks),
    }
    if replicate.wave is not None and replicate.stream is not None:
        sample["wave"], sample["stream"] = replicate.wave, replicate.stream
        sample["sent_ms"] = replicate.sent_ms or 0.0
    return sample
