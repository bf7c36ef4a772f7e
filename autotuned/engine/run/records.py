"""What is written down about runs, and read again. Decides nothing about a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import cast

from autotuned.core import check, confirm, doubts, noise, points
from autotuned.core import result as public
from autotuned.core.model import MachineFacts, Trial
from autotuned.core.pipeline import Finish, best_so_far, of_first
from autotuned.core.plan import Plan
from autotuned.core.request import TuneRequest
from autotuned.documents.noise import MeasuredDocument
from autotuned.documents.result import (
    CheckedDocument,
    ErrorDocument,
    ExitReason,
    RecommendationDocument,
    ResultDocument,
)
from autotuned.documents.run import RefusedDocument
from autotuned.engine.run import documents
from autotuned.engine.run.runner import Runner
from autotuned.errors import AutotunedError, NotFound
from autotuned.host.clock import utc_now
from autotuned.host.machine import Machine
from autotuned.providers.server import Binary, Provider
from autotuned.shared import wire
from autotuned.store import runs, trials
from autotuned.store.database import Database
from autotuned.store.runs import Details, RunRow, Which

OUTCOME = frozenset(
    (
        "total_s",
        "left_stopped",
        "alternates",
        "check",
        "confirmation",
        "error",
        "calibration",
        "profiles",
        "untried",
        "document",
    )
)
"""The details that the end of a run adds: none of them is true of a run that goes on."""


class Records:
    def __init__(self, database: Database, machine: Machine) -> None:
        self.database, self._machine = database, machine

    async def refuse(
        self,
        run_id: str,
        asked: TuneRequest,
        error: AutotunedError,
        prepared: tuple[Provider, Binary, Plan] | None = None,
    ) -> None:
        """Write a run that was refused before it began; `asked` holds what was usable of its request.

        `prepared` is what would have served it, where the refusal came after that was known.
        """
        known = error.kind in set(ExitReason)
        provider, version, models = asked.provider, "unknown", list(asked.candidate_models or ())
        if prepared is not None:
            provider, version = prepared[0].kind, prepared[1].version
            models = [candidate.model for candidate in prepared[2].candidates]
        row = dataclasses.replace(
            _row(
                run_id,
                asked,
                models,
                self._machine.facts(),
                version,
                purpose="refused",
            ),
            ended_at_utc=utc_now(),
            exit_reason=(ExitReason(error.kind) if known else ExitReason.CONFIG_ERROR).value,
        )
        details: Details = {
            "trigger": asked.trigger,
            "provider": provider,
            "warnings": [],
            "error": {"code": error.kind, "message": error.message},
        }
        await self.database.ask(runs.begin, row, details)
        await self.database.ask(runs.retain, asked.retain_runs, run_id, Which.REFUSED)

    async def begin(
        self, run_id: str, plan: Plan, provider: str, binary_version: str, max_tokens: int
    ) -> None:
        """Write a run that begins now. `max_tokens` is the length of its answers."""
        models = [candidate.model for candidate in plan.candidates]
        facts = self._machine.facts()
        purpose = "search" if plan.repeats is None else "check" if plan.repeats.check else "noise"
        row = _row(run_id, plan.request, models, facts, binary_version, purpose=purpose)
        details: Details = {
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
        if not plan.plain:
            details["search"] = public.search_document(plan)
        await self.database.ask(runs.begin, row, details)

    async def reopen(self, run_id: str) -> None:
        """Let a run that was cut off go on: its trials stay, but for those that were cut short."""
        details = await self.details(run_id)
        earlier = details.get("total_s", details.get("earlier_s", 0.0))
        begun = {name: value for name, value in details.items() if name not in OUTCOME}
        kept = cast("Details", {**begun, "earlier_s": earlier})
        await self.database.ask(runs.reopen, run_id, kept)

    async def finish(
        self,
        runner: Runner,
        finish: Finish,
        answer: RecommendationDocument | None,
        error: ErrorDocument | None,
    ) -> None:
        """Write how a run ended, with its recommendation; `error` replaces the usual explanation."""
        row, plan = await self.row(runner.run_id), runner.plan.parts()[0]
        details = await self.details(runner.run_id)
        history = await self.history(runner.run_id)
        if error is None and runner.conflict is not None:
            error = {"code": ExitReason.PROVIDER_CONFLICT, "message": runner.conflict}
        facts = self._machine.facts()
        digest = public.digest(facts, row.binary_version, plan, finish, answer)
        outcome: Details = {
            "warnings": [
                *details.get("warnings", ()),
                *runner.warnings,
                *doubts.of_run(plan, facts, history, finish),
            ],
            "left_stopped": runner.left_stopped,
            "total_s": details.get("earlier_s", 0.0) + runner.progress.elapsed_s,
            "alternates": public.alternates_of(plan, history, finish),
            "error": error or public.explain(plan, history, finish),
        }
        if plan.request.calibrate_context or plan.request.calibrate_concurrency:
            best = None if finish.best is None else finish.best.knobs
            outcome["calibration"] = points.document(plan, history, best)
        if finish.profiles:
            everything = await self.trials(runner.run_id)
            outcome["profiles"] = [
                public.profile(runner.run_id, facts, row.binary_version, part, each, everything)
                for part, each in finish.profiles
            ]
        if not plan.plain:
            outcome["untried"] = public.untried(plan, history)
        winner = best_so_far(history)
        if plan.request.confirm and winner is not None:
            _, meeting = confirm.confirmed(plan, history, winner)
            if meeting is not None:
                outcome["confirmation"] = meeting
                outcome["warnings"] += confirm.words(winner.knobs, meeting)
        if plan.repeats is not None and plan.repeats.check and history:
            outcome["check"] = await self._checked(plan, plan.repeats.of_run, history[-1])
        measured = _measured(runner, history)
        if measured is not None:
            outcome["noise"] = {"measured": measured}
        await self.database.ask(
            runs.finish,
            runner.run_id,
            exit_reason=finish.exit_reason.value,
            ended_at=utc_now(),
            recommendation=answer,
            recipe_hash=digest,
            details=outcome,
        )
        if measured is not None and measured["pairs"]:
            await self.database.ask(runs.annotate, measured["of_run"], measured=measured)

    async def _checked(self, plan: Plan, of_run: str, now: Trial) -> CheckedDocument:
        """How a recipe that was started again compares with its cell of that run."""
        context = plan.request.target_context
        before = tuple(t for t in await self.trials(of_run) if t.profile in (None, context))
        measured = (await self.details(of_run)).get("noise", {}).get("measured")
        spread = None if measured is None else measured["start_spread"]
        then = check.cell_of(before, plan.cells[0]) or now
        epsilon = plan.request.tps_tie_epsilon
        return check.judge(of_run, then, now, before, spread, epsilon)

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
        return next(iter(await self.recent(1, None, which)), None)

    async def last_good(self) -> RunRow | None:
        return await self.latest(Which.GOOD)

    async def history(self, run_id: str) -> tuple[Trial, ...]:
        """The trials of a run for its first target context, oldest first."""
        return of_first(await self.trials(run_id))

    async def trials(self, run_id: str) -> tuple[Trial, ...]:
        """All trials of a run, oldest first."""
        return await self.database.ask(trials.history, run_id)

    async def details(self, run_id: str) -> Details:
        return await self.database.ask(runs.details_of, run_id)

    async def result(self, row: RunRow, *, running: bool) -> ResultDocument:
        details = await self.details(row.run_id)
        if "document" in details:  # of the first version: what came later is not in it
            return {
                **details["document"],
                "warnings": details.get("warnings", []),
                "applied": details.get("applied"),
                "noise": {**details["document"]["noise"], **details.get("noise", {})},
            }
        history = await self.history(row.run_id)
        return documents.result(row, details, history, str(self.database.path), running=running)

    async def refused(self) -> RefusedDocument | None:
        """The latest request that was refused at the door; None where a newer run stands for it."""
        row = await self.latest(Which.REFUSED)
        shown = await self.latest(Which.SEARCHED)
        if row is None or (
            shown is not None
            and (row.started_at_utc, row.run_id) < (shown.started_at_utc, shown.run_id)
        ):
            return None
        document = await self.result(row, running=False)
        error = document["error"]
        return {
            "run_id": row.run_id,
            "at": row.started_at_utc,
            "exit_reason": ExitReason(row.exit_reason),
            "message": error["message"] if error is not None else "",
        }

    async def estimate_s(self, plan: Plan) -> float | None:
        """How long the plan may take, from the last good run's mean time a trial; None without one."""
        each = await self.trial_s(plan, same=False)
        if each is None:
            return None
        count = sum(1 + part.most for part in plan.parts())
        return round(min(each * count, plan.request.max_duration), 1)

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


def _measured(runner: Runner, history: Sequence[Trial]) -> MeasuredDocument | None:
    """What a measurement of noise has found; None for a run that is none."""
    plan = runner.plan
    if plan.repeats is None or plan.repeats.check:
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
