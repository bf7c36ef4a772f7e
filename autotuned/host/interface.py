"""The operating system as the engine sees it: candidates' processes, ports, machine facts, memory.

Small ports with one real implementation each, which the tests use too. Must not know what a run, a trial
or a provider is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from autotuned.core.model import Conditions, MachineFacts


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens on a port: `pid` and `name` are None where the system does not tell."""

    port: int
    pid: int | None
    name: str | None


class Pressure(StrEnum):
    """Memory pressure as the kernel judges it, in rising order."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


class Child(Protocol):
    """One running candidate and all processes of its group."""

    @property
    def pid(self) -> int:
        """The leader of the group, and the group's id."""

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative for a signal, as `subprocess` has it."""

    async def exited(self) -> int:
        """Wait until the leader has exited; the code. Cancel-safe."""

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to the group, after `grace_s` SIGKILL; returns when no process of the group is left.

        Idempotent, and safe to call when it is dead already. Sweeps helpers that outlived their leader.
        """


class Processes(Protocol):
    """Starts candidates so that none can outlive the agent, even one killed with -9."""

    @property
    def guardian_pid(self) -> int:
        """The pid that a candidate has as its parent."""

    async def open(self) -> None:
        """Make ready, so that `guardian_pid` is true. Idempotent. Raises OSError."""

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        log_max_bytes: int,
    ) -> Child:
        """Start `argv` in a session of its own, stdin from /dev/null, both outputs to `log` (0600, bounded).

        `env` is the whole environment. Raises OSError where the program cannot be started.
        """

    async def arm(self, duty: Mapping[str, Any], lock: int) -> None:
        """Have the guardian restore the live provider if this agent dies; it shares the lock `lock`.

        `duty` is `{folder, environ}`: where the journal is, and the environment for launchctl. Raises OSError.
        """

    async def disarm(self) -> None:
        """Nothing is owed any more. Idempotent."""

    async def stop_all(self) -> None:
        """Stop whatever still runs. Idempotent."""

    async def close(self) -> None:
        """Stop whatever still runs, then let the guardian go, unless it is armed. Idempotent."""


class Ports(Protocol):
    """TCP ports on 127.0.0.1."""

    def is_free(self, port: int) -> bool:
        """Nothing listens there, and it could be bound."""

    def listens(self, group: int, port: int) -> bool:
        """Some process of process group `group` listens on `port`."""

    def holder(self, port: int) -> Listener | None:
        """Who listens there now; None when nobody does."""


class Others(Protocol):
    """What other programs take of the processors since some moment."""

    def share(self) -> float:
        """From 0 to 1, of all processors."""

    def busiest(self) -> tuple[str, ...]:
        """The names of the programs that take most, now. Blocks for a moment."""


class Machine(Protocol):
    """Facts and strain of this machine."""

    def facts(self) -> MachineFacts:
        """RAM, chip and OS as the recipe names them, as they were when last asked for."""

    def refresh(self) -> MachineFacts:
        """The same, asked again. Blocks."""

    def pressure(self) -> Pressure:
        """Memory pressure now."""

    def thermals_nominal(self) -> bool:
        """False while the machine says that heat slows it down; True where it does not say."""

    def group_rss(self, group: int) -> int:
        """Resident bytes of all processes of a group, 0 when it is gone."""

    def conditions(self) -> Conditions:
        """Power and load now; what other programs take is not told. Blocks."""

    def others(self, group: int) -> Others:
        """Begin to count what programs take that are neither of a group nor this agent."""

    def priority(self, pid: int | None = None) -> tuple[int | None, int | None]:
        """Nice value and, on macOS, the scheduler's priority of a process, or of this one; None where not told."""


class Sleep(Protocol):
    """How long the machine has slept."""

    def slept_s(self) -> float:
        """Seconds asleep since some moment that stays the same while the agent lives."""
