"""Asks the machine what it is now, and compares that with the last good run.

`look` asks everything anew; `glance` is for whoever asks often, and never starts a program while a run
is measured. Must not decide what follows from the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.request import parse
from autotuned.core.staleness import Fingerprint, Verdict, compare, repeated
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.settings import Configuration
from autotuned.errors import ConfigError, ProviderMissing
from autotuned.host.machine import Machine
from autotuned.settings import ProviderSettings
from autotuned.store import runs
from autotuned.store.runs import Confirmed, Details, RunRow

KEEP_S = 600.0
"""A glance's answer is looked at again after this, for what shows in no file that we watch."""
RETRY_S = 30.0
"""The same where no serving program was found, or it could not be used."""
GLANCE_S = 2.0
"""So long a glance waits for a serving program to tell its version; later glances get the answer."""

Identity = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    verdict: Verdict
    basis: tuple[str | None, Mapping[str, object], ProviderSettings]
    files: Identity
    at: float


class Staleness:
    """Whether the last good recipe is still this machine's.

    `own` are the request's fields that a schedule in force sets; they are part of the question, because
    its run would be made with them.
    """

    def __init__(
        self, agent: Agent, records: Records, machine: Machine, configuration: Configuration
    ) -> None:
        self._agent, self._records, self._machine = agent, records, machine
        self._configuration = configuration
        self.own: Mapping[str, object] = {}
        self._seen: _Seen | None = None
        self._looking: asyncio.Task[Verdict] | None = None

    async def look(self) -> Verdict:
        """Ask the machine and the serving program now."""
        row = await self._records.last_good()
        basis = self._basis(row)
        verdict, words = Verdict((), None), tuple[str, ...]()
        if row is not None:
            verdict, words = await self._compared(row)
        files = await asyncio.to_thread(_identity, words)
        self._seen = _Seen(verdict, basis, files, time.monotonic())
        return verdict

    async def glance(self) -> Verdict | None:
        """The same from what is known, asked anew where that has changed; None while it is not known."""
        row = await self._records.last_good()
        if row is None:
            return Verdict((), None)
        seen = self._seen
        if seen is not None and seen.basis == self._basis(row):
            young = time.monotonic() - seen.at < (KEEP_S if seen.files else RETRY_S)
            words = tuple(name for name, *_ in seen.files)
            if self._agent.active_run() or (young and _identity(words) == seen.files):
                return seen.verdict
        if self._agent.active_run():
            return None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self.look(), name="staleness")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GLANCE_S):
                return await asyncio.shield(self._looking)
        return None

    async def close(self) -> None:
        """Stop asking. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def request(self, own: Mapping[str, object]) -> dict[str, object]:
        """The parameters of a re-tune: those of the last good run, `own` on top."""
        row = await self._records.last_good()
        return repeated({} if row is None else await self._request_of(row), own)

    async def confirm(self, check_id: str) -> None:
        """The check `check_id` found the recipe as good as it was: what it ran on is its machine."""
        row, check = await self._records.last_good(), await self._records.row(check_id)
        if row is not None:
            machine = _machine(check, await self._records.details(check_id))
            await self._records.database.ask(runs.annotate, row.run_id, confirmed=machine)
        self._seen = None

    def _basis(
        self, row: RunRow | None
    ) -> tuple[str | None, Mapping[str, object], ProviderSettings]:
        """What an answer rests on beside the machine."""
        run_id = None if row is None else row.run_id
        return run_id, self.own, self._configuration.now.provider

    async def _request_of(self, row: RunRow) -> dict[str, object]:
        details = await self._records.details(row.run_id)
        found = dict(details.get("request") or {})
        if found:
            # Left to choose, a tune of one serving program must not become a tune of another one.
            chosen = self._configuration.now.provider.kind == "auto"
            if chosen and found.get("provider") in (None, "auto"):
                found["provider"] = details.get("provider")
            return found
        models = json.loads(row.candidate_models_json)  # a prototype's run has no more than this
        return {"candidate_models": models, "target_context": row.target_context}

    async def _compared(self, row: RunRow) -> tuple[Verdict, tuple[str, ...]]:
        """The verdict, and the words of the serving program's command line."""
        details = await self._records.details(row.run_id)
        then = Fingerprint(
            **details.get("confirmed", _machine(row, details)),
            provider=details.get("provider") or "",
            candidate_models=tuple(json.loads(row.candidate_models_json)),
            target_context=row.target_context,
        )
        facts = await asyncio.to_thread(self._machine.refresh)
        kind, version = "", ""
        words: tuple[str, ...] = ()
        others: tuple[str, ...] = ()
        models, context = then.candidate_models, then.target_context
        try:
            params = repeated(await self._request_of(row), self.own)
            request = parse(params, self._configuration.now.descriptions)
            context = request.target_context
            provider, binary, planned = await self._agent.prepare(request)
            kind, version, words = provider.kind, binary.version, binary.command
            models = tuple(candidate.model for candidate in planned.candidates)
        except ProviderMissing:
            pass  # no version now: a reason of its own
        except ConfigError as error:
            version, kind = then.binary_version, then.provider
            others = (f"the last good request would be refused now: {error.message}",)
        now = Fingerprint(
            os_version=facts.os_version,
            os_build=facts.os_build,
            provider=kind,
            binary_version=version,
            chip=facts.chip,
            ram_gb=facts.ram_gb,
            candidate_models=models,
            target_context=context,
        )
        return compare(then, now, row.run_id, *others), words


def _machine(row: RunRow, details: Details) -> Confirmed:
    """What a run was measured on."""
    return {
        "os_version": row.machine_os_version,
        "os_build": details.get("os_build", ""),
        "binary_version": row.binary_version,
        "chip": row.machine_chip,
        "ram_gb": row.machine_ram_gb,
    }


def _identity(words: tuple[str, ...]) -> Identity:
    """Which files a serving program is made of now."""
    found = []
    for word in words:
        with contextlib.suppress(OSError, ValueError):
            status = Path(word).stat()
            found.append((word, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
