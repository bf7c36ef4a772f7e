"""What a serving program must tell us, and nothing more: a handful of questions, one file a program.

An adapter knows flags, paths and quirks of its server. It must not know the search, the store, or
how processes are started and measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from autotuned.core.command_line import Commands
from autotuned.core.model import WeightsFormat
from autotuned.descriptions import Entry
from autotuned.server_spec import ServerSpec
from autotuned.shared.knobs import Knobs


@dataclass(frozen=True, slots=True)
class Binary:
    """The serving program that was found: how to call it, and which version answers."""

    command: tuple[str, ...]
    """Absolute path first; more than one word where an interpreter or launcher is needed."""
    version: str
    candidate_flags: bool = False
    """Whether it takes the private flags of a candidate (macprovider)."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One start that is asked for. `knobs` None: the binary's own defaults (stage 1)."""

    model: str
    """The id as the request names it: what the server must list."""
    weights: Path
    """The folder (mlx) or the `.gguf` file (gguf) on this disk; for an id, its snapshot in the cache."""
    knobs: Knobs | None
    port: int
    target_context: int
    folder: Path
    """A private folder (0700) of this start, for configuration files of ours."""
    parent_pid: int
    """The pid that will be the candidate's parent."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: `argv`, and the changes to the agent's environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    """Prefixes of the variables that would configure this kind of server."""
    files: Mapping[Path, str] = field(default_factory=dict)
    """Files to write first, mode 0600."""


class Provider(Protocol):
    """One serving program."""

    kind: str
    """The name of its description, `spec`."""
    spec: ServerSpec
    commands: Commands
    """Command words by which a process that serves is recognised."""
    weights: WeightsFormat
    catalogue: Sequence[Entry]
    """The default candidates, largest first; empty where there is no default list."""

    def find(self) -> tuple[str, ...] | None:
        """How the program is called; None where it is not installed. Raises ProviderMissing for a bad setting."""

    async def locate(self) -> Binary:
        """Find the binary and ask its version. Raises ProviderMissing with the remedy."""

    def command(self, binary: Binary, launch: Launch) -> Command:
        """The argv (and private files) for one start; pure."""

    readiness: tuple[str, ...]
    """Paths that must answer 200, `/v1/models` first; 503 on any means: still loading."""

    def serves(self, listing: Any, model: str) -> bool:
        """True when the decoded answer of `/v1/models` names `model` as this server would; tolerant of odd shapes."""

    def request_model(self, launch: Launch) -> str:
        """What to put into the request's `model` field."""

    def serve_argv(self, binary: Binary, launch: Launch) -> tuple[str, ...]:
        """What the operator would type to serve with these knobs: `command` without what only a candidate needs."""

    fatal: re.Pattern[str]
    """What a line of a candidate's log holds that says: it will never serve."""

    def telling_line(self, log: str) -> str | None:
        """The line of a candidate's log that says best why it failed; None where none does."""
