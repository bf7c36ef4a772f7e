"""The described servers: which there are, whether one works, and the command line of a run's recipe.

A check is one trial outside of any run. Must not know the flags of a server, nor how a trial is made.
"""

from __future__ import annotations

import asyncio
import shutil
from typing import Literal

from autotuned.core.model import STAGE_SELECTION, Replicate, Trial
from autotuned.core.request import TuneRequest, parse
from autotuned.core.result import served
from autotuned.documents.events import TrialReport
from autotuned.documents.servers import (
    KnobHelp,
    ServeDocument,
    ServerCheck,
    ServerDocument,
    ServersDocument,
    ServerText,
)
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.live.preflight import conflict
from autotuned.engine.measure.context import Asked, Bench
from autotuned.engine.measure.trial import TrialRun, uncancelled
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.run.setup import Host, bench
from autotuned.engine.settings import Configuration
from autotuned.errors import ConfigError, NotFound, ProviderMissing, called
from autotuned.server_spec import KnobSpec, ServerSpec, as_toml

CHECK = {"kv_bits_axis": [None], "max_batch_axis": [1], "target_context": 512}


class Servers:
    def __init__(
        self,
        configuration: Configuration,
        agent: Agent,
        host: Host,
        records: Records,
        live: LiveProvider,
    ) -> None:
        self._configuration, self._agent = configuration, agent
        self._host, self._records, self._live = host, records, live

    async def list(self) -> ServersDocument:
        """Every server; installed ones are asked their version, but not while something is measured."""
        named = self._agent.descriptions
        asked = [self._document(name, spec) for name, spec in named.all().items()]
        return {"servers": await asyncio.gather(*asked), "lists": named.lists()}

    async def _document(self, name: str, spec: ServerSpec) -> ServerDocument:
        program, version, problem = None, None, None
        try:
            provider = self._host.choose(name)
            program = provider.find()
            if program is not None and self._agent.active_run() is None:
                version = (await provider.locate()).version
        except ProviderMissing as error:
            problem = error.message
        return {
            "name": name,
            "source": self._source(name),
            "program": None if program is None else [*program],
            "version": version,
            "problem": problem,
            "weights": spec.weights,
            "candidates": spec.candidates,
            "knobs": [_help(knob, described) for knob, described in spec.knobs.items()],
            "tried": spec.tried,
            "quirks": [*spec.quirks],
        }

    def _source(self, name: str) -> Literal["shipped", "settings"]:
        return "settings" if name in self._configuration.now.servers else "shipped"

    def show(self, name: str) -> ServerText:
        """A description. Raises ConfigError for a name that there is not."""
        spec = self._known(name)
        return {"name": name, "source": self._source(name), "toml": as_toml(name, spec)}

    def _known(self, name: str) -> ServerSpec:
        named = self._agent.descriptions
        field, rule = "name", named.server_rule(name)
        if rule is not None:
            raise ConfigError(field, name, rule)
        return named.all()[name]

    async def check(self, name: str, model: str | None, port: int | None = None) -> ServerCheck:
        """Start a server once, with the smallest model of its list where none is given.

        Raises as `start` does; what the server itself does wrong is in the answer.
        """
        self._known(name)
        chosen: dict[str, object] = {} if model is None else {"candidate_models": [model]}
        if port is not None:
            chosen["port"] = port
        request = parse({"provider": name, **chosen, **CHECK}, self._agent.descriptions)
        active = await self._agent.claim()
        try:
            with called("candidate_models", "model"):
                async with self._host.awake():
                    return await self._check(name, request, active.run_id)
        finally:
            self._agent.release(active)

    async def _check(self, name: str, request: TuneRequest, run_id: str) -> ServerCheck:
        provider, binary, planned = await self._agent.prepare(request)
        found = await self._live.find(provider, request.port)
        refused = conflict(found, request, drains=False)
        if refused is not None:
            raise refused
        reports: list[TrialReport] = []
        settings, prewarmer = self._configuration.now, self._agent.prewarmer
        made = bench(
            self._host,
            settings,
            prewarmer,
            self._agent.quarantine,
            run_id,
            planned.request,
            provider,
            binary,
            reports.append,
            lambda _: None,
        )
        asked = Asked(STAGE_SELECTION, planned.candidates[-1].model, 1, None, 1)
        try:
            run = TrialRun(made, asked, 1)
            trial = await run.run()
        finally:
            await uncancelled(_cleared(made))
        trial = trial if isinstance(trial, Trial) else run.record(None)
        sample = trial.replicates[0] if trial.replicates else Replicate()
        return {
            "server": name,
            "version": binary.version,
            "model": asked.model,
            "argv": next((e["argv"] for e in reports if e["type"] == "provider.starting"), []),
            "reason": trial.failure.reason if trial.failure else None,
            "ready_ms": next(
                (e["ready_ms"] for e in reports if e["type"] == "provider.ready"), None
            ),
            "ttft_ms": sample.ttft_ms,
            "tps": sample.tps,
            "prompt_tokens": sample.prompt_tokens,
            "completion_tokens": sample.completion_tokens,
            "cached_tokens": sample.cached_tokens,
            "stop_ms": trial.spent.stop_ms,
            "remarks": [*sample.remarks],
            "log": str(run.log),
        }

    async def serve(self, run_id: str | None) -> ServeDocument:
        """What serves the recipe of a run. Raises NotFound where it has none."""
        row = await self._records.row(run_id)
        answer = (await self._records.result(row, running=False))["recommendation"]
        if answer is None:
            message = f"run {row.run_id} recommends nothing, so there is nothing to serve"
            raise NotFound(message, run_id=row.run_id)
        argv = served(answer, await self._records.history(row.run_id))
        kind = (await self._records.details(row.run_id)).get("provider")
        spec = self._agent.descriptions.all().get(str(kind))
        return {"run_id": row.run_id, "argv": [*argv], "env": {} if spec is None else {**spec.env}}


async def _cleared(made: Bench) -> None:
    await made.processes.stop_all()
    await made.processes.close()
    await asyncio.to_thread(shutil.rmtree, made.folder, ignore_errors=True)


def _help(name: str, knob: KnobSpec) -> KnobHelp:
    return {
        "name": name,
        "help": knob.help,
        "values": None if knob.values is None else [*knob.values],
        "type": knob.type,
        "min": knob.min,
        "max": knob.max,
        "default_axis": list(knob.default_axis),
        "lossy": knob.lossy,
    }
