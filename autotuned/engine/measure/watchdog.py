"""What may not happen while a candidate is measured: the machine sleeps, or the live provider comes back.

A trial in which it happened is void: its figures would mislead, so it leaves no row, only a warning, and
is repeated. Must not know launchctl, clocks of systems, or what a trial measures.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from autotuned.host.interface import Sleep

SLEPT_S = 1.0
"""The two clocks drift by less than this; a real sleep is longer."""
MAX_RETURNS = 3
"""When the live provider has been brought back so often, somebody insists on it."""


class Cause(StrEnum):
    """Why a trial is void."""

    SLEPT = "slept"
    LIVE_BACK = "live_back"


@dataclass(frozen=True, slots=True)
class Void:
    """A trial that says nothing about its candidate."""

    cause: Cause
    reason: str


def unstopped_s(sleep: Sleep) -> float:
    """A clock that counts the time asleep, too: seconds since some moment."""
    return time.monotonic() + sleep.slept_s()


async def _nobody() -> str | None:
    return None


async def _nothing_to_drain() -> str | None:
    return "nothing was drained"


@dataclass(slots=True)
class Vigil:
    """Keeps watch over one run. `returned` tells who has come back; None while nobody has, or nobody is drained."""

    sleep: Sleep
    returned: Callable[[], Awaitable[str | None]] = _nobody
    drain_again: Callable[[], Awaitable[str | None]] = _nothing_to_drain
    """Stop who has come back: None once that is done, else why it is not."""
    _mark_s: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """A trial begins: sleep before this moment does not count against it."""
        self._mark_s = self.sleep.slept_s()

    async def look(self) -> Void | None:
        """What has happened since `begin`, if anything did."""
        return self.slept() or await self._live_back()

    def slept(self) -> Void | None:
        """The machine has slept since `begin`."""
        gap = self.sleep.slept_s() - self._mark_s
        if gap <= SLEPT_S:
            return None
        return Void(Cause.SLEPT, f"the machine slept for {gap:.0f} s")

    async def _live_back(self) -> Void | None:
        name = await self.returned()
        return None if name is None else Void(Cause.LIVE_BACK, f"{name} was brought back")
