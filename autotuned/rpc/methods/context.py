"""What the methods speak to, and the parameters that several of them take."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from autotuned import __version__
from autotuned.documents.run import VersionDocument
from autotuned.engine.apply.apply import Applier
from autotuned.engine.doctor import Scene
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.schedule.schedule import Nightly
from autotuned.engine.schedule.staleness import Staleness
from autotuned.engine.settings import Configuration
from autotuned.rpc.method import Params
from autotuned.settings import Settings
from autotuned.shared import wire


class RunParams(Params):
    """A run; where it is left out the active one, else the latest that searched."""

    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces that the methods speak to."""

    configuration: Configuration
    agent: Agent
    records: Records
    events: Events
    live: LiveProvider
    applier: Applier
    staleness: Staleness
    nightly: Nightly
    scene: Callable[[], Awaitable[Scene]]
    """What `doctor` may look at now."""
    started_at: str
    shut_down: Callable[[], None]

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self.configuration.now

    def version(self) -> VersionDocument:
        """Who answers, and where its files are."""
        return {
            "name": "autotuned",
            "version": __version__,
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "started_at": self.started_at,
            "socket": str(self.settings.socket),
            "db_path": str(self.settings.database),
            "provider": self.settings.provider.kind,
            "log_path": str(self.settings.logs / wire.LOG_NAME),
        }
