"""The composition root: builds the concrete services, runs them, and takes them down in order. No logic.

Order of the start: lock, orphans of a crash, the live provider that it left drained, store, agent, socket. The socket appears last, so that
whoever can connect gets answers. The stop is the same way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from autotuned import __version__, logs, providers
from autotuned.documents.result import ExitReason
from autotuned.engine.apply.apply import Applier
from autotuned.engine.doctor import CheckContext
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.live.lease import Recovered, insist, recover
from autotuned.engine.live.restart import Restarter
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.run.setup import Host
from autotuned.engine.schedule.notify import Notifier
from autotuned.engine.schedule.schedule import Nightly
from autotuned.engine.schedule.staleness import Staleness
from autotuned.engine.servers import Servers
from autotuned.engine.settings import Configuration
from autotuned.errors import AlreadyRunning, UnsafePath
from autotuned.host import power
from autotuned.host.children.process import Processes, sweep_orphans
from autotuned.host.clock import LocalZone, Sleep, utc_now
from autotuned.host.files import (
    Lock,
    lock_holder,
    private_folder,
    refuse_root_elsewhere,
    take_lock,
)
from autotuned.host.find import Finder
from autotuned.host.machine import Machine
from autotuned.host.managers import Managers
from autotuned.host.ports import Ports
from autotuned.host.restore.orphans import MARKER
from autotuned.providers.server import Provider
from autotuned.rpc.methods import Services, table
from autotuned.rpc.server import Server
from autotuned.settings import Settings
from autotuned.shared import wire
from autotuned.store import events as kept
from autotuned.store.database import Database

log = structlog.get_logger(__name__)


def claim(environ: Mapping[str, str]) -> Lock:
    """Become the one agent of this home. Raises AlreadyRunning naming the holder, or UnsafePath."""
    folder = Path(wire.config_folder(environ)) / "run"
    refuse_root_elsewhere(folder)
    private_folder(folder)
    path = folder / "autotuned.lock"
    try:
        lock = take_lock(path)
    except OSError as error:
        why = f"cannot be locked: {error.strerror}; make its folder writable for this user"
        raise UnsafePath(path, why) from error
    if lock is None:
        message = f"another autotuned runs for this home: {lock_holder(path)} ({path})"
        raise AlreadyRunning(message, path=str(path))
    return lock


def sweep(environ: Mapping[str, str]) -> int:
    """End candidates that a killed agent of this home left behind; how many."""
    return sweep_orphans(MARKER, wire.config_folder(environ))


def restore(environ: Mapping[str, str]) -> Recovered:
    """Bring back a live provider that a killed agent of this home left drained. Never raises."""
    return recover(Path(wire.config_folder(environ)) / "run", environ)


def restore_before_end(found: Recovered, environ: Mapping[str, str]) -> None:
    """The same with more patience, for an agent that cannot start and so will not try again."""
    insist(found, Path(wire.config_folder(environ)) / "run", environ)


async def serve(
    settings: Settings,
    environ: Mapping[str, str],
    reread: Callable[[], Settings],
    recovered: Recovered,
) -> None:
    """Serve until SIGTERM, SIGINT or `shutdown`; a run in progress is cancelled and seen to its end.

    `reread` reads the settings again, as they were read for `settings`.
    """
    configuration = Configuration(settings, reread)
    database = await Database.open(settings.database)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        if database.moved_aside is not None:
            log.error(
                "the database was corrupt and has been set aside", path=str(database.moved_aside)
            )
        events = Events(database, utc_now, await database.ask(kept.last_seq))
        stack.push_async_callback(events.close)
        before = events.seq
        for run_id in await database.ask(kept.unfinished_runs):
            events.publish({"type": "run.finished", "exit_reason": ExitReason.INTERRUPTED}, run_id)
        machine = Machine()
        records = Records(database, machine)
        notifier = Notifier(configuration, records, events, environ)
        notifier.open(since=before)
        stack.push_async_callback(notifier.close)

        def choose(kind: str) -> Provider:
            now = configuration.now
            return providers.choose(kind, now.provider, environ, now.descriptions)

        host = Host(
            processes=lambda: Processes(MARKER, str(settings.home)),
            ports=Ports(),
            machine=machine,
            sleep=Sleep(),
            awake=power.awake,
            choose=choose,
            marker=MARKER,
            environ=environ,
        )
        finder = Finder(Managers(environ), host.ports, lambda: configuration.now, MARKER)
        live = LiveProvider(finder, settings, database, events, environ)
        await live.take_over(recovered, host.processes())
        stack.push_async_callback(live.close)
        restarter = Restarter(live, configuration, host.choose, host.processes, environ)
        applier = Applier(configuration, records, events, machine, host.choose, restarter, environ)
        agent = Agent(configuration, records, events, host, live, applier)
        await agent.quarantine.adopt()
        staleness = Staleness(agent, records, machine, configuration)
        configuration.adopt.append(lambda new: logs.adopt(new.log))
        stack.push_async_callback(staleness.close)
        nightly = Nightly(
            agent,
            records,
            events,
            staleness,
            owed=lambda: live.lease is not None,
            on_ac=power.on_ac,
            now=lambda: datetime.now(UTC),
            zone=LocalZone(),
        )
        await nightly.open()

        async def context() -> CheckContext:
            return CheckContext(
                settings=configuration.now,
                reread=reread,
                environ=environ,
                choose=host.choose,
                ports=host.ports,
                machine=machine,
                records=records,
                active_run=agent.active_run(),
                live=await live.sighting.document(live.lease),
                lease=live.public(),
                schedule=await nightly.get(0),
            )

        stopping = asyncio.Event()
        services = Services(
            configuration,
            agent,
            records,
            events,
            live,
            applier,
            staleness,
            nightly,
            Servers(configuration, agent, host, records, live),
            context,
            utc_now(),
            stopping.set,
        )
        server = Server(settings.socket, table(services))
        await server.start()
        stack.push_async_callback(server.close)
        stack.push_async_callback(agent.close)
        stack.push_async_callback(nightly.close)
        nightly.begin()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        log.info("listening", socket=str(settings.socket), pid=os.getpid(), version=__version__)
        await stopping.wait()
        log.info("stopping")
