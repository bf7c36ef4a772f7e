"""What is written down about runs, and the documents that are read from it.

The bridge between the store's rows and the public documents: one place builds each of them. Decides
nothing about a run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from autotuned.core import load, noise
from autotuned.core import result as public
from autotuned.core.model import MachineFacts, Trial
from autotuned.core.pipeline import Finish, best_so_far, uneven_lengths
from autotuned.core.request import Plan, TuneRequest
from autotuned.documents.noise import MeasuredDocument
from autotuned.documents.result import (
    AppliedDocument,
    ErrorDocument,
    ExitReason,
    ResultDocument,
)
from autotuned.documents.run import RunDocument, SummaryDocument
from autotuned.documents.trial import TrialDocument
from autotuned.engine.measure.context import Bench
from autotuned.engine.run.runner import Runner
from autotuned.errors import AutotunedError, NotFound
from autotuned.host.clock import utc_now
from autotuned.host.interface import Machine
from autotuned.providers.interface import Launch
from autotuned.shared import wire
from autotuned.store import runs
from autotuned.store.database import Database
from autotuned.store.runs import RunRow, Which
from autotuned.weights.cache import Weights


class Records:
    """The runs in the store."""

    def __init__(self, database: Database, machine: Machine) -> None:
        self.database, self._machine = database, machine

    async def refuse(self, run_id: str, asked: TuneRequest, error: AutotunedError) -> None:
        """Write a run that was refused before it began; `asked` holds what was usable of its request."""
        row = _row(
            run_id,
            asked,
            list(asked.candidate_models or ()),
            self._machine.facts(),
            "unknown",
            purpose="refused",
        )
        said: ErrorDocument = {"code": error.kind, "message": error.message}
        await self.database.ask(
            runs.begin, row, {"trigger": asked.trigger, "provider": asked.provider, "warnings": []}
        )
        finish = Finish(
            ExitReason(error.kind) if error.kind in set(ExitReason) else ExitReason.CONFIG_ERROR
        )
        await self._end(row, {}, None, (), finish, said, None)
        await self.database.ask(runs.retain, asked.retain_runs, run_id, Which.REFUSED)

    async def begin(
        self, run_id: str, plan: Plan, provider: str, binary_version: str, max_tokens: int
    ) -> None:
        """Write a run that begins now. `max_tokens` is the length of its answers."""
        models = [candidate.model for candidate in plan.candidates]
        facts = self._machine.facts()
        purpose = "search" if plan.repeats is None else "noise"
        row = _row(run_id, plan.request, models, facts, binary_version, purpose=purpose)
        details = {
            "trigger": plan.request.trigger,
            "provider": provider,
            "warnings": list(plan.warnings),
            "seed": plan.seed,
            "live_model": plan.live_model,
            "request": plan.request.model_dump(mode="json"),
            "os_build": facts.os_build,
            "max_tokens": max_tokens,
            "noise_of": None if plan.repeats is None else plan.repeats.of_run,
        }
        await self.database.ask(runs.begin, row, details)

    async def reopen(self, run_id: str) -> None:
        """Let a run that was cut off go on: its trials stay, but for those that were cut short."""
        details = await self.details(run_id)
        document = details.pop("document", {})
        took_s = document.get("timings", {}).get("total_s", 0.0)
        details["earlier_s"] = details.get("earlier_s", 0.0) + took_s
        await self.database.ask(runs.reopen, run_id, details)

    async def finish(
        self, runner: Runner, finish: Finish, bench: Bench, said: ErrorDocument | None
    ) -> None:
        """Write how a run ended, with its recommendation and document; `said` replaces the usual explanation."""
        row = await self.row(runner.run_id)
        details = await self.details(runner.run_id)
        history = await self.history(runner.run_id)
        error = said or public.explain(runner.plan, history, finish)
        if said is None and runner.conflict is not None:
            error = {"code": ExitReason.PROVIDER_CONFLICT, "message": runner.conflict}
        command = await _serve_command(finish, bench)
        details["warnings"] = [
            *details.get("warnings", ()),
            *runner.warnings,
            *public.doubts(self._machine.facts(), finish),
            *(uneven_lengths(finish.best, history) if finish.best is not None else ()),
        ]
        details["left_stopped"] = runner.left_stopped
        details["total_s"] = details.get("earlier_s", 0.0) + runner.progress.elapsed_s
        measured = _measured(runner, history)
        await self._end(row, details, runner.plan, history, finish, error, command, measured)
        if measured is not None and measured["pairs"]:
            await self.database.ask(runs.annotate, measured["of_run"], noise={"measured": measured})

    async def annotate(
        self,
        run_id: str,
        *,
        applied: AppliedDocument | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """Add what was applied of a run, and warnings, to what is kept of it."""
        await self.database.ask(runs.annotate, run_id, applied=applied, warnings=warnings)

    async def retain(self, keep: int, active: str) -> list[str]:
        """Let the runs beyond the newest `keep` go; their ids."""
        return await self.database.ask(runs.retain, keep, active)

    async def row(self, run_id: str | None) -> RunRow:
        """One run, or the newest that searched for None. Raises NotFound."""
        if run_id is not None:
            found = await self.database.ask(runs.run, run_id)
        else:
            found = await self.latest(Which.SEARCHED)
        if found is None:
            message = (
                f"there is no run {run_id}"
                if run_id
                else "there is no run yet: start one with autotunectl start"
            )
            raise NotFound(message, run_id=run_id)
        return found

    async def recent(
        self, limit: int, before: str | None, which: Which = Which.BEGUN
    ) -> list[RunRow]:
        """Runs, newest first."""
        return await self.database.ask(runs.newest, limit, before, which)

    async def latest(self, which: Which) -> RunRow | None:
        """The newest run of a kind."""
        return next(iter(await self.recent(1, None, which)), None)

    async def last_good(self) -> RunRow | None:
        """The newest run that ended `ok`."""
        return await self.latest(Which.GOOD)

    async def history(self, run_id: str) -> tuple[Trial, ...]:
        """The trials of a run, oldest first."""
        return await self.database.ask(runs.history, run_id)

    async def details(self, run_id: str) -> dict[str, Any]:
        """What is kept beside a run's row."""
        return await self.database.ask(runs.details_of, run_id)

    async def result(self, row: RunRow, *, running: bool) -> ResultDocument:
        """The public document: as it was written at the end, or made from what there is so far."""
        details = await self.details(row.run_id)
        if "document" in details:
            return cast("ResultDocument", details["document"])
        history = await self.history(row.run_id)
        finish = Finish(ExitReason(row.exit_reason))
        error: ErrorDocument | None = None
        if not running:
            error = {"code": row.exit_reason, "message": "the agent ended before this run did"}
        return self._document(row, details, None, history, finish, error, None, running=running)

    async def estimate_s(self, plan: Plan) -> float | None:
        """How long the plan may take, from the last good run's mean time a trial; None without one."""
        each = await self.trial_s(plan, same=False)
        if each is None:
            return None
        return round(min(each * (1 + len(plan.cells)), plan.request.max_duration), 1)

    async def trial_s(self, plan: Plan, *, same: bool) -> float | None:
        """Mean seconds a trial of the last run with a recommendation, or of the last such that asked the `same`."""
        models = [candidate.model for candidate in plan.candidates]
        wanted = (plan.request.target_context, plan.request.stage2_replicates, models)
        for row in await self.recent(20, None, Which.GOOD):
            asked = (
                row.target_context,
                row.stage2_replicates,
                json.loads(row.candidate_models_json),
            )
            if same and asked != wanted:
                continue
            history = await self.history(row.run_id)
            total = (await self.details(row.run_id)).get("total_s")
            if history and isinstance(total, float):
                return total / len(history)
        return None

    async def _end(
        self,
        row: RunRow,
        details: Mapping[str, Any],
        plan: Plan | None,
        history: Sequence[Trial],
        finish: Finish,
        error: ErrorDocument | None,
        serve_command: str | None,
        measured: MeasuredDocument | None = None,
    ) -> None:
        ended = RunRow(
            **{**_columns(row), "ended_at_utc": utc_now(), "exit_reason": finish.exit_reason.value}
        )
        kept = details or await self.details(row.run_id)
        document = self._document(
            ended, kept, plan, history, finish, error, serve_command, measured, running=False
        )
        await self.database.ask(
            runs.finish,
            row.run_id,
            exit_reason=ended.exit_reason,
            ended_at=ended.ended_at_utc or "",
            recommendation=document["recommendation"],
            recipe_hash=document["recipe_hash"],
            details={**kept, "document": document},
        )

    def _document(
        self,
        row: RunRow,
        details: Mapping[str, Any],
        plan: Plan | None,
        history: Sequence[Trial],
        finish: Finish,
        error: ErrorDocument | None,
        serve_command: str | None,
        measured: MeasuredDocument | None = None,
        *,
        running: bool,
    ) -> ResultDocument:
        facts = MachineFacts(row.machine_ram_gb, row.machine_chip, row.machine_os_version, 0)
        models = json.loads(row.candidate_models_json)
        answer = None if plan is None else public.recommend(plan, finish, serve_command or "")
        best = finish.best.knobs if answer is not None and finish.best is not None else None
        digest = None
        if answer is not None and best is not None:
            digest = public.recipe_hash(
                facts, row.binary_version, models, row.target_context, answer["model"], best
            )
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
                "candidate_models": models,
                "stage1_replicates": row.stage1_replicates,
                "stage2_replicates": row.stage2_replicates,
                "gate_ttft_ms": row.gate_ttft_ms,
                "tps_tie_epsilon": row.tps_tie_epsilon,
            },
            "recommendation": answer,
            "alternates": [] if plan is None else public.alternates_of(plan, history, finish),
            "infeasible": public.infeasible(history),
            "recipe_hash": digest,
            "db_path": str(self.database.path),
            "exit_reason": ExitReason(row.exit_reason),
            "state": "running" if running else "finished",
            "trigger": details.get("trigger", "manual"),
            "provider": details.get("provider"),
            "warnings": list(details.get("warnings", ())),
            "error": error,
            "applied": details.get("applied"),
            "live_model": details.get("live_model"),
            "left_stopped": details.get("left_stopped"),
            "timings": public.timings(history, details.get("total_s")),
            "stage2": public.cells(history),
            "noise": noise.of_run(history) if measured is None else {"measured": measured},
        }
        concurrency = details.get("request", {}).get("concurrency", 1)
        if concurrency > 1:
            document["inputs"]["concurrency"] = concurrency
        return document


def run_document(
    row: RunRow, details: Mapping[str, Any], history: Sequence[Trial], runner: Runner | None
) -> RunDocument:
    """The run document; `runner` is the one in progress, None for a run that has ended."""
    best = best_so_far(history)
    return {
        **summary(row, running=runner is not None),
        "phase": "finished" if runner is None else runner.progress.phase,
        "progress": None if runner is None else runner.progress.document(),
        "best": None
        if best is None or best.knobs is None
        else {
            "model": best.model,
            "knobs": public.knobs_document(best.knobs),
            "tps_median": best.tps_median,
            "ttft_p95_ms": best.ttft_p95_ms,
        },
        "infeasible": public.infeasible(history),
        "warnings": [
            *details.get("warnings", ()),
            *(runner.warnings if runner is not None else ()),
        ],
        "trigger": details.get("trigger", "manual"),
        "provider": details.get("provider"),
        "cancelling": runner is not None and runner.cancelled,
    }


def summary(row: RunRow, *, running: bool) -> SummaryDocument:
    """One line of the table of runs."""
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
    """One trial with all its samples, as `trials` gives it."""
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
        "spent": dataclasses.asdict(trial.spent),
        "started_at": trial.started_at,
        "ended_at": trial.ended_at,
        "samples": [public.sample_document(replicate) for replicate in trial.replicates],
    }


async def _serve_command(finish: Finish, bench: Bench) -> str | None:
    """The command that serves the best cell, quoted for a shell."""
    if finish.best is None or finish.best.knobs is None:
        return None
    weights = await bench.prewarm(finish.best.model, lambda **_: None)
    if not isinstance(weights, Weights):
        return None
    launch = Launch(
        model=finish.best.model,
        weights=weights.path,
        knobs=finish.best.knobs,
        port=bench.port,
        target_context=bench.target_context,
        folder=bench.folder,
        parent_pid=0,
    )
    return public.shell_command(bench.provider.serve_argv(bench.binary, launch))


def _measured(runner: Runner, history: Sequence[Trial]) -> MeasuredDocument | None:
    """What a measurement of noise has found; None for a run that is none."""
    plan = runner.plan
    if plan.repeats is None:
        return None
    which = noise.Measurement(runner.run_id, plan.repeats.of_run, utc_now())
    gate, epsilon = plan.request.gate_ttft_ms, plan.request.tps_tie_epsilon
    return noise.of_pairs(history, plan.cells[: plan.together], gate, epsilon, which)


def _row(
    run_id: str,
    request: TuneRequest,
    models: Sequence[str],
    facts: MachineFacts,
    binary_version: str,
    *,
    purpose: str,
) -> RunRow:
    return RunRow(
        run_id=run_id,
        started_at_utc=utc_now(),
        ended_at_utc=None,
        spec_version=wire.SPEC_VERSION,
        binary_version=binary_version,
        machine_ram_gb=facts.ram_gb,
        machine_chip=facts.chip,
        machine_os_version=facts.os_version,
        target_context=request.target_context,
        candidate_models_json=json.dumps(list(models), ensure_ascii=False),
        stage1_replicates=request.stage1_replicates,
        stage2_replicates=request.stage2_replicates,
        gate_ttft_ms=request.gate_ttft_ms,
        tps_tie_epsilon=request.tps_tie_epsilon,
        purpose=purpose,
    )


def _columns(row: RunRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in RunRow.__slots__}
