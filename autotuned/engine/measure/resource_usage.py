"""What a candidate does to the machine while it is tried, and with which priority it runs.

Resident memory is not sampled while a request is measured: walking the process table takes milliseconds
that would show in the figures. Judges nothing but memory that has run out.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from autotuned.core.model import Strain
from autotuned.host.interface import Child, Machine, Pressure

PRESSURE_POLL_S = 1.0
PRESSURE_CRITICAL_S = 10.0


class Gauge:
    """The strain of one trial, as it is read off."""

    def __init__(self, machine: Machine, *, guard: bool) -> None:
        """`guard`: critical memory pressure ends the trial."""
        self._machine, self._guard = machine, guard
        self._child: Child | None = None
        self.strain = Strain()
        self.measuring = False
        """A request is being measured: keep quiet."""

    async def attach(self, child: Child) -> None:
        """This is the candidate; read its priority, which it keeps."""
        self._child = child
        nice, priority = await asyncio.to_thread(self._machine.priority, child.pid)
        self.strain = replace(self.strain, nice=nice, priority=priority)

    def sample(self) -> None:
        """Read resident memory now."""
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
