"""How long the machine has slept: the gap between a clock that counts sleep and one that does not.

The wall clock is not asked: it is set, stepped and slewed. The same name means different clocks on the
two systems: macOS counts sleep in CLOCK_MONOTONIC_RAW (mach_continuous_time), Linux in CLOCK_BOOTTIME alone.
"""

from __future__ import annotations

import sys
import time


class SleepClock:
    """This machine's sleep."""

    def slept_s(self) -> float:
        """Seconds asleep since some moment that stays the same while the agent lives."""
        if sys.platform == "darwin":
            return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - time.monotonic()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class FakeSleep:
    """A machine that sleeps when a test says so."""

    def __init__(self) -> None:
        self.total_s = 0.0

    def slept_s(self) -> float:
        """Seconds asleep so far."""
        return self.total_s

    def sleep(self, seconds: float) -> None:
        """The lid is closed, and opened again after `seconds`."""
        self.total_s += seconds
