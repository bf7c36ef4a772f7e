"""Rings once at a moment of the wall clock, also when the machine slept over it or its clock was set.

APScheduler holds the timer. Its timers stand still while a Mac sleeps, so a heartbeat looks at the
clocks and wakes it after a gap. Nothing of it is loaded or running before a first moment is set. Must
not know what it rings for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

HEARTBEAT_S = 30.0
GAP_S = 1.0
"""By so much the wall clock and the monotonic one may drift apart between two beats."""


class Alarm:
    """One moment at a time. `ring` is called at it; `due` tells at each beat which moment it should be now."""

    def __init__(self, ring: Callable[[], object], due: Callable[[], datetime | None]) -> None:
        self._ring, self._due = ring, due
        self._at: datetime | None = None
        self._scheduler: AsyncIOScheduler | None = None
        self._heart: asyncio.Task[None] | None = None

    def set(self, at: datetime | None) -> None:
        """Ring at `at` (UTC), at once if that has passed; None: not at all, and nothing runs any more."""
        self._at = at
        if at is None:
            self.close()
            return
        # A tenth of a second that an agent without a schedule saves.
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # noqa: PLC0415
        from apscheduler.triggers.date import DateTrigger  # noqa: PLC0415

        if self._scheduler is None:
            self._scheduler = AsyncIOScheduler(timezone=UTC)
            self._scheduler.start()
            self._heart = asyncio.create_task(self._beat(), name="heartbeat of the schedule")
        self._scheduler.add_job(
            self._rung,
            DateTrigger(at, UTC),  # without a zone it asks for the machine's, and fails on some
            id="ring",
            replace_existing=True,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )

    def close(self) -> None:
        """Ring no more. Idempotent."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None

    async def _rung(self) -> None:
        """A coroutine, so that it runs on the loop; what it begins is not APScheduler's to cancel."""
        self._ring()

    async def _beat(self) -> None:
        before = _clocks()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            now = _clocks()
            gap = (now[0] - before[0]) - (now[1] - before[1])
            before = now
            at = self._due()
            if at is None or at != self._at:
                self.set(at)
            elif self._scheduler is not None and abs(gap) > GAP_S:
                self._scheduler.wakeup()


def _clocks() -> tuple[float, float]:
    return time.time(), time.monotonic()
