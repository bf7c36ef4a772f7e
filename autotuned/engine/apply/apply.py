"""Whether a recommendation may be written into the provider's configuration, and what is said about it.

The answer is the same for a command, a program and the end of a run. How the file is written is
the writer's; nothing that comes over the socket names a file here but a backup beside the original.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import structlog

from autotuned.core.config.policy import Terms, bound_warning
from autotuned.core.config.reader import Scalar
from autotuned.core.lease import Foreground
from autotuned.core.request import TuneRequest
from autotuned.core.result import served
from autotuned.documents.events import Applied
from autotuned.documents.provider import ConfigurationResult
from autotuned.documents.result import AppliedDocument, ExitReason, RecommendationDocument
from autotuned.engine.apply import place as place_module
from autotuned.engine.apply import writer as writer_module
from autotuned.engine.apply.consent import (
    CONFIGURED_KIND,
    Consent,
    must_be_this_machine,
    must_have_a_file,
    named_backup,
    recommended,
)
from autotuned.engine.apply.place import Place
from autotuned.engine.apply.writer import Written
from autotuned.engine.events import Events
from autotuned.engine.live.preflight import lists_another
from autotuned.engine.live.restart import Restarter
from autotuned.engine.measure.trial import uncancelled
from autotuned.engine.run.records import Records
from autotuned.engine.run.runner import Runner
from autotuned.engine.settings import Configuration
from autotuned.errors import ApplyRefused, AutotunedError, NotFound, ProviderMissing, UnsafePath
from autotuned.host import operators_file
from autotuned.host.machine import Machine
from autotuned.providers.server import Provider
from autotuned.settings import Settings
from autotuned.shared.knobs import read as read_knobs
from autotuned.shared.paths import expanded, is_path
from autotuned.store import runs
from autotuned.store.runs import RunRow
from autotuned.writers import Recipe, not_in_effect, ours, recipe

Writing = Callable[..., Awaitable["Written"]]
"""Writes a recipe to its place; with `dry_run` only tells what it would."""

log = structlog.get_logger(__name__)


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
        details = await self._records.details(row.run_id)
        answer = recommended(row, details, consent)
        kind = details.get("provider") or CONFIGURED_KIND
        if not consent.force:
            await self._must_be_this_machine(row, kind)
        terms = consent.terms(details.get("request") or {})
        write = await self._writing(row.run_id, kind, answer, terms)
        if consent.dry_run:
            written = await write(dry_run=True)
            return {**written.document(None, applied=False), "run_id": row.run_id}

        async def note(written: Written, hint: str | None) -> None:
            await self._note(row.run_id, written, hint, consent.context)

        carried = self._carry_out(row.run_id, kind, active, write, note, restart=consent.restart)
        return {**await uncancelled(carried), "run_id": row.run_id}

    async def _carry_out(
        self,
        run_id: str,
        kind: str,
        active: Callable[[], str | None],
        write: Callable[[], Awaitable[Written]],
        note: Callable[[Written, str | None], Awaitable[None]],
        *,
        restart: bool,
    ) -> ConfigurationResult:
        """Write and note it, then restart what serves, if that was asked for.

        That is claimed before anything is written, and given up where the writing fails.
        """
        unfit: str | None = "not asked for"
        if restart:
            unfit = await self._restarter.claim(run_id, active, kind)
        try:
            written = await write()
            hint = await self._restarter.commands(kind, written.path) if unfit else None
            await note(written, hint)
        except BaseException:
            if unfit is None:
                self._restarter.live.unclaim()
            raise
        if unfit is None:
            unfit = await self._restarter.carry_out()
        told = written.document(hint, applied=True)
        told["restarted"] = unfit is None
        if restart and unfit is not None:
            told["warnings"].append(f"not restarted: {unfit}")
        if told["restarted"] and written.wanted is not None:
            await self._see(kind, written.wanted, told)
        return told

    async def _see(self, kind: str, wanted: Recipe, told: ConfigurationResult) -> None:
        """Whether the live server runs the recipe, by its command line and by what it lists."""
        live = (await self._restarter.find(kind)).live
        missing = ["the live server is not seen"] if live is None else []
        missing += [] if live is None else not_in_effect(live.argv, wanted)
        missing += [] if live is None else await lists_another(live, wanted.model)
        told["in_effect"] = not missing
        told["warnings"] += [f"not in effect: {words}" for words in missing]

    async def conclude(
        self, runner: Runner, kind: str, reason: ExitReason, answer: RecommendationDocument | None
    ) -> None:
        """Write what a run has just found, if that was asked for; with a drain the restore makes it live.

        Never a partial recommendation, and never raises: the run keeps what it found, and a warning says why not.
        """
        if not runner.plan.request.apply or answer is None:
            return
        runner.enter("applying")
        try:
            written = await self._conclude(runner, kind, reason, answer)
        except AutotunedError as error:
            warnings: tuple[str, ...] = (f"not applied: {error.message}",)
        except Exception:
            log.exception("apply failed")
            warnings = ("not applied: a bug, the agent's log has the details",)
        else:
            warnings = written.warnings
        await self._records.database.ask(runs.annotate, runner.run_id, warnings=warnings)
        for warning in warnings:
            runner.tell(warning)

    async def _conclude(
        self, runner: Runner, kind: str, reason: ExitReason, answer: RecommendationDocument
    ) -> Written:
        run_id, request = runner.run_id, runner.plan.request
        if answer.get("partial") or reason is not ExitReason.OK:
            message = f"the recommendation is partial: take it with autotunectl apply {run_id} --allow-partial"
            raise ApplyRefused(message, "partial", run_id=run_id)
        consent = Consent(knobs_only=request.knobs_only, all_knobs=request.all_knobs)
        terms = consent.terms(request.model_dump())
        written = await (await self._writing(run_id, kind, answer, terms))()
        lease = self._restarter.live.lease
        hint = None if lease else await self._restarter.commands(kind, written.path)
        if lease and isinstance(lease.target, Foreground) and written.path.name == ours.SCRIPT:
            told = f"a server in a terminal comes back with its own arguments: stop it and run {written.path}"
            written = dataclasses.replace(written, warnings=(*written.warnings, told))
        await self._note(run_id, written, hint)
        return written

    async def doubt(self, request: TuneRequest, kind: str, models: Sequence[str]) -> str | None:
        """Why what a run of `models` finds will not be applied, as far as that can be told before it begins."""
        if not request.apply:
            return None
        if kind != CONFIGURED_KIND:
            try:
                await self._place(kind)
            except ApplyRefused as error:
                return f"nothing will be applied: {error.message}"
            return None
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
        kind = await self._applied_kind()
        place, absent = await self._place(kind), None
        if place is not None and not place.path.exists():
            absent, place = place.path, None  # what was written last is macprovider's
        backup, unit = None, None
        if place is not None and place.ours and name is None:
            work, unit = functools.partial(writer_module.remove, place), place.unit
        else:
            path = self._settings.provider_config if place is None else place.path
            backup = await asyncio.to_thread(named_backup, path, name, absent)
            whole, remember = whole or place is not None, self._restarter.live.record
            work = functools.partial(
                writer_module.put_back, path, backup, whole=whole, remember=remember
            )

        async def write() -> Written:
            async with self._turn:
                written = await asyncio.to_thread(work, int(time.time()))
                if unit is not None:
                    await self._restarter.reload(unit)
            return written

        async def note(written: Written, _: str | None) -> None:
            if backup is not None:
                log.info("reverted", backup=str(backup), kept=str(written.backup))
            self._publish(None, written, reverted_to=backup)

        carried = self._carry_out("revert", kind, active, write, note, restart=restart)
        reverted_to = None if backup is None else str(backup)
        return {**await uncancelled(carried), "reverted_to": reverted_to}

    async def _place(self, kind: str) -> Place | None:
        """Where a recipe of this kind of server goes; None for macprovider's own configuration."""
        unit, found = await self._restarter.unit(kind), await self._restarter.find(kind)
        return place_module.choose(self._settings, self._choose(kind), found, unit, self._environ)

    async def _writing(
        self, run_id: str, kind: str, answer: RecommendationDocument, terms: Terms
    ) -> Writing:
        """What writes this recommendation to its place. Raises ApplyRefused where it has none."""
        place = await self._place(kind)
        if place is None:
            must_have_a_file(kind, run_id)
            return functools.partial(self._write, self._recipe(answer), terms)
        knobs = read_knobs(cast("Mapping[str, object]", answer["knobs"]))
        spec = self._choose(kind).spec
        argv = served(answer, await self._records.trials(run_id))
        model, line = self._model(answer["model"]), answer["serve_command"]
        wanted = recipe(spec, model, knobs, line, terms, argv)
        return functools.partial(self._put, place, wanted)

    async def _put(self, place: Place, wanted: Recipe, *, dry_run: bool = False) -> Written:
        now, remember = int(time.time()), self._restarter.live.record
        async with self._turn:
            written = await asyncio.to_thread(
                writer_module.put, place, wanted, now, dry_run=dry_run, remember=remember
            )
            if place.unit is not None and not dry_run:
                await self._restarter.reload(place.unit)
        return dataclasses.replace(written, wanted=wanted if place.unit is not None else None)

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
                    remember=self._restarter.live.record,
                )
            except ApplyRefused:
                if self._restarter.recorded is not before:
                    await asyncio.to_thread(self._restarter.live.record, before)
                raise

    async def _note(
        self, run_id: str, written: Written, hint: str | None, context: int | None = None
    ) -> None:
        """Remember that a run was applied. A later one that changes nothing leaves the first one's backup named."""
        before = (await self._records.details(run_id)).get("applied")
        told = written.document(hint, applied=True)
        applied: AppliedDocument = {
            "config_path": told["config_path"],
            "backup_path": told["backup_path"],
            "changed": told["changed"],
            "hint": hint,
            "recipe": dict(written.recipe),
        }
        if context is not None:
            applied["target_context"] = context
        if written.changed or before is None:
            await self._records.database.ask(runs.annotate, run_id, applied=applied)
        backup = applied["backup_path"]
        log.info("applied", run_id=run_id, changed=sorted(written.changed), backup=backup)
        self._publish(run_id, written)

    def _publish(
        self, run_id: str | None, written: Written, reverted_to: Path | None = None
    ) -> None:
        told = written.document(None, applied=True)
        event: Applied = {
            "type": "applied",
            "config_path": told["config_path"],
            "backup_path": told["backup_path"],
            "changed": told["changed"],
            "warnings": told["warnings"],
        }
        if reverted_to is not None:
            event["reverted_to"] = str(reverted_to)
        self._events.publish(event, run_id)

    async def _applied_kind(self) -> str:
        """The kind of server whose recipe was written last; macprovider where there is no run."""
        try:
            row = await self._records.row(None)
        except NotFound:
            return CONFIGURED_KIND
        return (await self._records.details(row.run_id)).get("provider") or CONFIGURED_KIND

    async def _must_be_this_machine(self, row: RunRow, kind: str) -> None:
        try:
            version = (await self._choose(kind).locate()).version
        except ProviderMissing:
            version = "not installed"
        must_be_this_machine(row, self._machine.facts(), version)

    def _recipe(self, answer: RecommendationDocument) -> dict[str, Scalar]:
        knobs = cast("Mapping[str, Scalar]", answer["knobs"])
        return {"model": self._model(answer["model"]), **knobs}

    def _model(self, model: str) -> str:
        return expanded(model, self._environ) if is_path(model) else model
