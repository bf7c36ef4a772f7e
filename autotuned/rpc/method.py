"""One method of the control socket, the services of the agent that methods speak to, and parameters that several take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

if TYPE_CHECKING:
    from autotuned.rpc.connection import Connection
import os

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

Handler = Callable[["Connection", dict[str, Any]], Awaitable[object]]


class Params(BaseModel):
    """Parameters by name; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Method:
    """`params` validates unless the handler does so itself (`start`); `result` is one document, or any of several,
    or a JSON Schema."""

    name: str
    summary: str
    handler: Handler
    params: type[BaseModel] = Params
    result: object = None
    errors: tuple[int, ...] = ()
    validates_itself: bool = False
    acts: bool = False
    """What it has begun it carries through, whether or not the client is still there."""


def schema_of(document: object) -> dict[str, Any]:
    """The JSON Schema of an answer."""
    if isinstance(document, Mapping):
        return dict(document)
    if document is None:
        return {"type": "object"}
    adapter: TypeAdapter[Any] = TypeAdapter(document)  # type: ignore[arg-type]  # a type or a union of them
    return adapter.json_schema(mode="serialization")


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
