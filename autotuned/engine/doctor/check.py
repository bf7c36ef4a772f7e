"""What a check may look at, and what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from autotuned.documents.provider import LeaseDocument, LiveProviderDocument
from autotuned.documents.schedule import ScheduleDocument
from autotuned.engine.run.records import Records
from autotuned.host.machine import Machine
from autotuned.host.ports import Ports
from autotuned.providers.server import Provider
from autotuned.settings import Settings


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The agent's pieces, for looking only."""

    settings: Settings
    reread: Callable[[], Settings]
    """The settings file as it is now. Raises SettingsError."""
    environ: Mapping[str, str]
    choose: Callable[[str], Provider]
    ports: Ports
    machine: Machine
    records: Records
    active_run: str | None
    live: LiveProviderDocument | None
    """The live provider as `status` shows it; None where none is known."""
    lease: LeaseDocument | None
    """As `status` shows it; None where nothing is owed."""
    schedule: ScheduleDocument | None


Check = Callable[[CheckContext], Awaitable[Finding] | Finding]
"""One that only asks the system may block: it is called on a thread."""


def fine(detail: str, remedy: str | None = None) -> Finding:
    """As it should be."""
    return Finding(Level.INFO, detail, remedy)


def doubt(detail: str, remedy: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(Level.WARNING, detail, remedy)


def broken(detail: str, remedy: str) -> Finding:
    """A run, or the agent, would fail."""
    return Finding(Level.ERROR, detail, remedy)
