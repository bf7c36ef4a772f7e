"""The service manager of this machine, and the agent's job in it: launchd wherever there is a `launchctl`, else systemd.

Both sides answer the same few questions. Must not know the agent's socket, nor when a job may be changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from autotunectl.errors import CommandError


class ServiceError(CommandError):
    """The service manager refused."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message, 1, remedy)


@dataclass(frozen=True, slots=True)
class Job:
    """What a job file says: the program with its arguments, absolute, and the environment beyond HOME and LANG."""

    program: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A job that the manager knows: `where` (a launchd domain, or `user`), and its process, if one runs."""

    where: str
    pid: int | None


class Service(Protocol):
    """The agent's job."""

    kind: str
    """`launchd` or `systemd`."""
    path: Path
    """The job's file."""

    @property
    def output(self) -> Path | None:
        """The file that takes what the agent says outside its own log, where the manager keeps none itself."""

    def content(self, job: Job) -> bytes:
        """The job's file for this program. Raises ServiceError where it would not be valid."""

    def loaded(self) -> Loaded | None:
        """Where the job is loaded; None when it is not."""

    def load(self) -> Loaded:
        """Load the job's file and start it. Raises ServiceError."""

    def unload(self) -> bool:
        """Stop the job and wait until the manager has forgotten it; False when it was not loaded. Raises ServiceError."""

    def start(self) -> None:
        """Start an installed job that does not run, loaded or not. Raises ServiceError."""

    def forget(self) -> None:
        """Undo what stays with the manager after the file has gone."""


def template(name: str) -> bytes:
    """A job's file as it is packed with the client."""
    packed = resources.files("autotunectl").joinpath("launchd", name)
    if packed.is_file():
        return packed.read_bytes()
    return (Path(__file__).parents[2] / "launchd" / name).read_bytes()


def find() -> Service | None:
    """The service manager of this machine; None where there is none that we know."""
    launchctl, systemctl = shutil.which("launchctl"), shutil.which("systemctl")
    if launchctl:
        from autotunectl.service.launchd import LaunchdJob

        return LaunchdJob(launchctl)
    if systemctl:
        from autotunectl.service.systemd import SystemdUnit

        return SystemdUnit(systemctl)
    return None


def home() -> Path:
    """The home whose agent this is."""
    return Path(os.environ.get("HOME") or Path.home())
