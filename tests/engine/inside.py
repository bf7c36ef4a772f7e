"""The agent inside the test's own process, over a home's scripted provider: for what no test can do from outside."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from autotuned import providers, settings
from autotuned.documents.result import ResultDocument
from autotuned.engine.apply.apply import Applier
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.live.restart import Restarter
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.run.setup import Host
from autotuned.engine.settings import Configuration
from autotuned.host import power
from autotuned.host.children.process import Processes
from autotuned.host.clock import Sleep, utc_now
from autotuned.host.find import Finder
from autotuned.host.machine import Machine
from autotuned.host.managers import Managers
from autotuned.host.ports import Ports
from autotuned.store.database import Database
from tests.support.home import Home

MARKER = "AUTOTUNED_CANDIDATE"


class FakeSleep(Sleep):
    """A machine that sleeps when a test says so."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def slept_s(self) -> float:
        """Seconds asleep so far."""
        return self.total_s

    def sleep(self, seconds: float) -> None:
        """The lid is closed, and opened again after `seconds`."""
        self.total_s += seconds


@contextlib.asynccontextmanager
async def agent(home: Home, **pieces: Any) -> AsyncIterator[Agent]:
    """An agent of this home; `pieces` replace parts of its host."""
    chosen = settings.load(home.environ)
    database = await Database.open(chosen.database)
    machine = Machine()
    events = Events(database, utc_now, 0)
    host = Host(
        processes=lambda: Processes(MARKER, str(chosen.home)),
        ports=Ports(),
        machine=machine,
        sleep=FakeSleep(),
        awake=power.awake,
        choose=lambda kind: providers.choose(
            kind, chosen.provider, home.environ, chosen.descriptions
        ),
        marker=MARKER,
        environ=home.environ,
    )
    configuration = Configuration(chosen, lambda: chosen)
    finder = Finder(Managers(home.environ), host.ports, lambda: configuration.now, MARKER)
    live = LiveProvider(finder, chosen, database, events, home.environ)
    host = dataclasses.replace(host, **pieces)
    records = Records(database, machine)
    restarter = Restarter(live, configuration, host.choose, host.processes, home.environ)
    applier = Applier(configuration, records, events, machine, host.choose, restarter, home.environ)
    made = Agent(configuration, records, events, host, live, applier)
    try:
        yield made
    finally:
        await made.close()
        await live.close()
        await events.close()
        await database.close()


async def tune(agent: Agent, home: Home, *models: str, **fields: Any) -> ResultDocument:
    """Run to the end; the result document."""
    request = {"kv_bits_axis": [None], "max_batch_axis": [1], "port": home.port, **fields}
    started = await agent.start({"candidate_models": list(models), **request})
    await agent.wait(started["run_id"], 60)
    return await agent.result(started["run_id"])
