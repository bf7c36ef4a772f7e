"""Whether a recommendation may be written into the provider's configuration, and what is said about it.

The answer is the same for a command, a program and the end of a run. How the file is written is
the writer's; nothing that comes over the socket names a file here but a backup beside the original.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog
from pydantic import TypeAdapter, ValidationError

from autotuned.core.config.policy import Terms, bound_warning, decided
from autotuned.core.config.reader import Scalar
from autotuned.core.request import TuneRequest
from autotuned.documents.apply import ConfigurationResult
from autotuned.documents.result import AppliedDocument, ExitReason, RecommendationDocument
from autotuned.engine.apply import writer as writer_module
from autotuned.engine.apply.writer import Written
from autotuned.engine.events import Events
from autotuned.engine.live.restart import Restarter
from autotuned.engine.measure.trial import uncancelled
from autotuned.engine.run.records import Records
from autotuned.engine.run.runner import Runner
from autotuned.engine.settings import Configuration
from autotuned.errors import ApplyRefused, AutotunedError, ProviderMissing, UnsafePath
from autotuned.host import operators_file
from autotuned.host.interface import Machine
from autotuned.providers.interface import Provider
from autotuned.settings import Settings
from autotuned.shared.paths import expanded, is_path
from autotuned.store.runs import RunRow

CONFIGURED_KIND = "macprovider"
"""The one provider that has a configuration file; the others are told everything on their command line."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Consent:
    """What the operator wants, and has agreed to beyond the usual."""

    allow_partial: bool = False
    force: bool = False
    restart: bool = False
    dry_run: bool = False
    knobs_only: bool = False
    all_knobs: bool = False

    def terms(self, request: Mapping[str, Any]) -> Terms:
        """On which terms the recipe of a run with this request is written."""
        return Terms(decided(request), self.knobs_only, self.all_knobs)


class Applier:
    """Recommendations into the configuration, and back; one at a time."""

    def __init__(
        self,
        configuration: Configuration,
        records: Records,
        events: Events,
        machine: Machine,
        choose: Callable[[str], Provider],
        restarter: Restarter,
        environ: Mapping[str, str],
    ) -> None:
        self._restarter = restarter
        self._configuration, self._records, self._events = configuration, records, events
        self._machine, self._choose, self._environ = machine, choose, environ
        self._turn = asyncio.Lock()

    @property
    def _settings(self) -> Settings:
        """Those in use now."""
        return self._configuration.now

    async def apply(
        self, run_id: str | None, consent: Consent, active: Callable[[], str | None]
    ) -> ConfigurationResult:
        """Write the recommendation of a run, the newest for None; and what was done.

        `active` tells the run in progress. Raises NotFound, or ApplyRefused with the configuration as it
        was; with a restart also what `Restarter.claim` and `carry_out` raise.
        """
        row = await self._records.row(run_id)
        if row.run_id == active():
            message = f"run {row.run_id} is still running: wait for it, or cancel it"
            raise ApplyRefused(message, "running", run_id=row.run_id)
        answer = _recommended(row, consent)
        details = await self._records.details(row.run_id)
        kind = details.get("provider") or CONFIGURED_KIND
        _must_have_a_file(kind, row.run_id)
        if not consent.force:
            await self._must_be_this_machine(row, kind)
        recipe, terms = self._recipe(answer), consent.terms(details.get("request") or {})
        if consent.dry_run:
            written = await self._write(recipe, terms, dry_run=True)
            return {**_told(written, None, applied=False), "run_id": row.run_id}
        carried = self._carry_out(row.run_id, recipe, terms, consent, active)
        return {**await uncancelled(carried), "run_id": row.run_id}

    async def _carry_out(
        self,
        run_id: str,
        recipe: Mapping[str, Scalar],
        terms: Terms,
        consent: Consent,
        active: Callable[[], str | None],
    ) -> ConfigurationResult:
        """Write and note it, then restart what serves, if that was asked for."""
        unfit = await self._restarter.claim(run_id, active) if consent.restart else "not asked for"
        try:
            written = await self._write(recipe, terms)
            hint = await self._restarter.commands() if unfit else None
            await self._note(run_id, written, hint)
        except BaseException:
            if unfit is None:
                self._restarter.give_up()
            raise
        return await self._made_live(written, hint, unfit, asked=consent.restart)

    async def conclude(
        self,
        runner: Runner,
        kind: str,
        exit_reason: ExitReason,
        answer: RecommendationDocument | None,
        *,
        drained: bool,
    ) -> None:
        """Write what a run has just found, if that was asked for; with a drain the restore makes it live.

        Never a partial recommendation, and never raises: the run keeps what it found, and a warning says why not.
        """
        if not runner.plan.request.apply or answer is None:
            return
        runner.enter("applying")
        try:
            written = await self._conclude(runner, kind, exit_reason, answer, drained=drained)
        except AutotunedError as error:
            warnings: tuple[str, ...] = (f"not applied: {error.message}",)
        except Exception:
            log.exception("apply failed")
            warnings = ("not applied: a bug, the agent's log has the details",)
        else:
            warnings = written.warnings
        await self._records.annotate(runner.run_id, warnings=warnings)
        for warning in warnings:
            self._events.publish("log", runner.run_id, level="warning", message=warning)

    async def _conclude(
        self,
        runner: Runner,
        kind: str,
        exit_reason: ExitReason,
        answer: RecommendationDocument,
        *,
        drained: bool,
    ) -> Written:
        run_id, request = runner.run_id, runner.plan.request
        if answer.get("partial") or exit_reason is not ExitReason.OK:
            message = f"the recommendation is partial: take it with autotunectl apply {run_id} --allow-partial"
            raise ApplyRefused(message, "partial", run_id=run_id)
        _must_have_a_file(kind, run_id)
        consent = Consent(knobs_only=request.knobs_only, all_knobs=request.all_knobs)
        written = await self._write(self._recipe(answer), consent.terms(request.model_dump()))
        await self._note(run_id, written, None if drained else await self._restarter.commands())
        return written

    async def doubt(self, request: TuneRequest, kind: str, models: Sequence[str]) -> str | None:
        """Why what a run of `models` finds will not be applied, as far as that can be told before it begins."""
        if not request.apply:
            return None
        if kind != CONFIGURED_KIND:
            return f"nothing will be applied: {kind} has no configuration that is ours to write"
        if request.knobs_only:
            return None
        try:
            found = await asyncio.to_thread(operators_file.look, self._settings.provider_config)
            text = (found.content or b"").decode()
        except (OSError, UnsafePath, UnicodeDecodeError):
            return None  # told by the apply itself
        return bound_warning(text, [self._model(model) for model in models])

    async def revert(
        self, name: str | None, active: Callable[[], str | None], *, whole: bool, restart: bool
    ) -> ConfigurationResult:
        """Put our keys back as the newest backup has them, or the one of that name; or the `whole` file.

        Raises ApplyRefused, the configuration as it was; with a restart also what `apply` raises then.
        """
        backup = await asyncio.to_thread(_backup, self._settings.provider_config, name)
        work = self._revert(backup, active, whole=whole, restart=restart)
        return {**await uncancelled(work), "reverted_to": str(backup)}

    async def _revert(
        self, backup: Path, active: Callable[[], str | None], *, whole: bool, restart: bool
    ) -> ConfigurationResult:
        path = self._settings.provider_config
        unfit = await self._restarter.claim("revert", active) if restart else "not asked for"
        try:
            async with self._turn:
                written = await asyncio.to_thread(
                    writer_module.put_back,
                    path,
                    backup,
                    int(time.time()),
                    whole=whole,
                    remember=self._restarter.record,
                )
            hint = await self._restarter.commands() if unfit else None
            log.info("reverted", backup=str(backup), kept=str(written.backup))
            self._publish(None, written, reverted_to=str(backup))
        except BaseException:
            if unfit is None:
                self._restarter.give_up()
            raise
        return await self._made_live(written, hint, unfit, asked=restart)

    async def _made_live(
        self, written: Written, hint: str | None, unfit: str | None, *, asked: bool
    ) -> ConfigurationResult:
        """Restart what serves, where it was claimed; what was done."""
        if unfit is None:
            unfit = await self._restarter.carry_out()
        told = _told(written, hint, applied=True)
        told["restarted"] = unfit is None
        if asked and unfit is not None:
            told["warnings"].append(f"not restarted: {unfit}")
        return told

    async def _write(
        self, recipe: Mapping[str, Scalar], terms: Terms, *, dry_run: bool = False
    ) -> Written:
        path, now = self._settings.provider_config, int(time.time())
        async with self._turn:
            before = self._restarter.recorded
            try:
                return await asyncio.to_thread(
                    writer_module.apply,
                    path,
                    recipe,
                    now,
                    dry_run=dry_run,
                    terms=terms,
                    remember=self._restarter.record,
                )
            except ApplyRefused:
                if self._restarter.recorded is not before:
                    await asyncio.to_thread(self._restarter.record, before)
                raise

    async def _note(self, run_id: str, written: Written, hint: str | None) -> None:
        """Remember that a run was applied. A later one that changes nothing leaves the first one's backup named."""
        before = (await self._records.details(run_id)).get("applied")
        applied: AppliedDocument = {
            "config_path": str(written.path),
            "backup_path": None if written.backup is None else str(written.backup),
            "changed": {key: dict(both) for key, both in written.changed.items()},
            "hint": hint,
            "recipe": dict(written.recipe),
        }
        if written.changed or before is None:
            await self._records.annotate(run_id, applied=applied)
        log.info(
            "applied", run_id=run_id, changed=sorted(written.changed), backup=applied["backup_path"]
        )
        self._publish(run_id, written)

    def _publish(self, run_id: str | None, written: Written, **fields: Any) -> None:
        told = _told(written, None, applied=True)
        self._events.publish(
            "applied",
            run_id,
            config_path=told["config_path"],
            backup_path=told["backup_path"],
            changed=told["changed"],
            warnings=told["warnings"],
            **fields,
        )

    async def _must_be_this_machine(self, row: RunRow, kind: str) -> None:
        facts = self._machine.facts()
        try:
            version = (await self._choose(kind).locate()).version
        except ProviderMissing:
            version = "not installed"
        pairs = {
            "RAM": (f"{row.machine_ram_gb} GB", f"{facts.ram_gb} GB"),
            "chip": (row.machine_chip, facts.chip),
            "provider's version": (row.binary_version, version),
        }
        other = [f"{name} {was}, now {now}" for name, (was, now) in pairs.items() if was != now]
        if other:
            message = f"run {row.run_id} was measured on another machine ({'; '.join(other)}): tune again, or insist with --force"
            raise ApplyRefused(message, "other_machine", run_id=row.run_id, differences=other)

    def _recipe(self, answer: RecommendationDocument) -> dict[str, Scalar]:
        knobs = cast("Mapping[str, Scalar]", answer["knobs"])
        return {"model": self._model(answer["model"]), **knobs}

    def _model(self, model: str) -> str:
        return expanded(model, self._environ) if is_path(model) else model


def _recommended(row: RunRow, consent: Consent) -> RecommendationDocument:
    """The recommendation of a run that may be applied. Raises ApplyRefused."""
    content = json.loads(row.recommendation_json) if row.recommendation_json else None
    if not content:
        message = f"run {row.run_id} made no recommendation (it ended {row.exit_reason}): choose another with autotunectl runs"
        raise ApplyRefused(message, "no_recommendation", run_id=row.run_id)
    try:
        answer = TypeAdapter(RecommendationDocument).validate_python(content)
    except ValidationError:
        message = f"run {row.run_id} was written by another version and its recommendation cannot be used: tune again"
        raise ApplyRefused(message, "no_recommendation", run_id=row.run_id) from None
    if answer.get("partial") and not consent.allow_partial:
        message = f"the recommendation of run {row.run_id} is partial, not every cell was measured: take it with --allow-partial"
        raise ApplyRefused(message, "partial", run_id=row.run_id)
    return answer


def _must_have_a_file(kind: str, run_id: str) -> None:
    """Only macprovider reads the file: what another server was measured with must not get into it."""
    if kind != CONFIGURED_KIND:
        message = (
            f"run {run_id} was measured with {kind}, which has no configuration file of its own: "
            "start it with the `serve` command of autotunectl show"
        )
        raise ApplyRefused(message, "other_provider", run_id=run_id, provider=kind)


def _backup(path: Path, name: str | None) -> Path:
    try:
        found = operators_file.backups(path)
    except OSError as error:
        message = f"{path.parent}: cannot be listed: {error.strerror}"
        raise ApplyRefused(message, "io_error") from error
    if not found:
        message = f"{path} has no backup (no file {path.name}.bak-* beside it)"
        raise ApplyRefused(message, "no_backup")
    if name is None:
        return found[0]
    for backup in found:
        if backup.name == name:
            return backup
    known = ", ".join(backup.name for backup in found[:5])
    message = f"{name[:100]!r} is no backup of {path}: the newest are {known}"
    raise ApplyRefused(message, "no_backup")


def _told(written: Written, hint: str | None, *, applied: bool) -> ConfigurationResult:
    return {
        "applied": applied,
        "changed": {key: dict(both) for key, both in written.changed.items()},
        "config_path": str(written.path),
        "backup_path": None if written.backup is None else str(written.backup),
        "restarted": False,
        "diff": written.diff,
        "recipe": dict(written.recipe) or None,
        "hint": hint,
        "warnings": list(written.warnings),
    }
