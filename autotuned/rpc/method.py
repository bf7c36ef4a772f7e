"""One method of the control socket, the services of the agent that methods speak to, and parameters that several take."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import get_type_hints

from pydantic import BaseModel, ConfigDict

from autotuned import __version__
from autotuned.documents.run import VersionDocument
from autotuned.engine.apply.apply import Applier
from autotuned.engine.doctor import CheckContext
from autotuned.engine.events import Events
from autotuned.engine.live.drain import LiveProvider
from autotuned.engine.run.records import Records
from autotuned.engine.run.runs import Agent
from autotuned.engine.schedule.schedule import Nightly
from autotuned.engine.schedule.staleness import Staleness
from autotuned.engine.servers import Servers
from autotuned.engine.settings import Configuration
from autotuned.settings import Settings
from autotuned.shared import wire


class Params(BaseModel):
    """Parameters by name; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Method:
    """The handler takes a connection and its parameters; its annotations say which those are, and what it answers."""

    name: str
    summary: str
    handler: Callable[..., Awaitable[object]]
    errors: tuple[int, ...] = ()
    raw: type[BaseModel] | None = None
    """What it takes, where the handler validates that itself: it gets what came, by name."""
    result: object = None
    """A JSON Schema of the answer, where its annotation does not say enough."""
    acts: bool = False
    """What it has begun it carries through, whether or not the client is still there."""

    @property
    def params(self) -> type[BaseModel]:
        """What it takes."""
        _, params, _ = get_type_hints(self.handler).values()
        return self.raw or params

    @property
    def answer(self) -> object:
        """What it answers: a document, any of several, or a JSON Schema."""
        return self.result or get_type_hints(self.handler)["return"]


class RunParams(Params):
    """A run; where it is left out the active one, else the latest that searched."""

    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """The services that the methods speak to."""

    configuration: Configuration
    agent: Agent
    records: Records
    events: Events
    live: LiveProvider
    applier: Applier
    staleness: Staleness
    nightly: Nightly
    servers: Servers
    context: Callable[[], Awaitable[CheckContext]]
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
