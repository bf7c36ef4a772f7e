"""While a candidate is measured: its memory is sampled, and neither may the machine sleep nor the live provider come back.

A trial in which either happened is void: its figures would mislead, so it leaves no row, only a warning, and
is repeated. Must not know launchctl, clocks of systems, or what a trial measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar

from autotuned.core.doubts import BUSY
from autotuned.core.model import Conditions, ResourceUsage
from autotuned.host.children.process import Child
from autotuned.host.clock import Sleep
from autotuned.host.machine import Machine, Pressure

T = TypeVar("T")

SLEPT_S = 1.0
"""The two clocks drift by less than this; a real sleep is longer."""
MAX_RETURNS = 3
"""When the live provider has been brought back so often, somebody insists on it."""


class Cause(StrEnum):
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


async def _nothing_to_drain() -> str | None:
    return "nothing was drained"


@dataclass(slots=True)
class Watchdog:
    """Keeps watch over one run. `returned` tells who has come back, if anybody; it is None where nobody is drained."""

    sleep: Sleep
    returned: Callable[[], Awaitable[str | None]] | None = None
    drain_again: Callable[[], Awaitable[str | None]] = _nothing_to_drain
    """Stop who has come back: None once that is done, else why it is not."""
    _mark_s: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """A trial begins: sleep before this moment does not count against it."""
        self._mark_s = self.sleep.slept_s()

    async def look(self) -> Void | None:
        """What has happened since `begin`, if anything did."""
        if (slept := self.slept()) is not None:
            return slept
        name = None if self.returned is None else await self.returned()
        return None if name is None else Void(Cause.LIVE_BACK, f"{name} was brought back")

    def slept(self) -> Void | None:
        gap = self.sleep.slept_s() - self._mark_s
        if gap <= SLEPT_S:
            return None
        return Void(Cause.SLEPT, f"the machine slept for {gap:.0f} s")


PRESSURE_POLL_S = 1.0
PRESSURE_CRITICAL_S = 10.0


class Sampler:
    """The strain of one trial, as it is read off."""

    def __init__(self, machine: Machine, *, guard: bool) -> None:
        """`guard`: critical memory pressure ends the trial."""
        self._machine, self._guard = machine, guard
        self._child: Child | None = None
        self.strain = ResourceUsage()
        self.conditions = Conditions()
        self.measuring = False
        """A request is being measured: keep quiet."""

    async def begin(self) -> None:
        """Note what the machine is under before the candidate is there."""
        self.conditions = await asyncio.to_thread(self._machine.conditions)

    async def counted(self, work: Coroutine[object, object, T]) -> T:
        """Await the measuring, and note what other programs took of the processors meanwhile."""
        group = 0 if self._child is None else self._child.pid
        others = await asyncio.to_thread(self._machine.others, group)
        try:
            return await work
        finally:
            share = await asyncio.to_thread(others.share)
            names = await asyncio.to_thread(others.busiest) if share > BUSY else ()
            self.conditions = replace(self.conditions, others_share=round(share, 4), busiest=names)

    async def attach(self, child: Child) -> None:
        """This is the candidate; read its priority, which it keeps."""
        self._child = child
        nice, priority = await asyncio.to_thread(self._machine.priority, child.pid)
        self.strain = replace(self.strain, nice=nice, priority=priority)

    def sample(self) -> None:
        if self._child is not None:
            resident = self._machine.group_rss(self._child.pid)
            peak = max(self.strain.peak_rss_bytes or 0, resident)
            self.strain = replace(self.strain, peak_rss_bytes=peak or None)

    async def watch(self) -> None:
        """Return once memory pressure has been critical for 10 s on end; otherwise never."""
        critical_since: float | None = None
        order = list(Pressure)
        while True:
            pressure = await asyncio.to_thread(self._machine.pressure)
            if order.index(pressure) > order.index(Pressure(self.strain.worst_pressure)):
                self.strain = replace(self.strain, worst_pressure=pressure)
            if pressure is not Pressure.CRITICAL or not self._guard:
                critical_since = None
            elif critical_since is None:
                critical_since = time.monotonic()
            elif time.monotonic() - critical_since >= PRESSURE_CRITICAL_S:
                return
            if not self.measuring:
                self.sample()
            await asyncio.sleep(PRESSURE_POLL_S)
