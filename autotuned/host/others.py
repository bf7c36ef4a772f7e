"""What other programs take of the processors while a candidate is measured."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from autotuned.host.ports import members

LOOK_S = 0.2
NAMED = 3


class OtherPrograms:
    """Counts from its making. `AUTOTUNED_BUSY_FILE` names a file that tells `{share, busiest}` instead, for
    tests and for containers, which see the processors of their host."""

    def __init__(self, group: int, environ: Mapping[str, str] = os.environ) -> None:
        """`group`: the candidate's."""
        self._group, self._file = group, environ.get("AUTOTUNED_BUSY_FILE")
        self._before = self._times()

    def share(self) -> float:
        """From 0 to 1, of all processors."""
        if self._file is not None:
            return self._told()[0]
        whole, busy, ours = (
            now - before for now, before in zip(self._times(), self._before, strict=True)
        )
        return min(1.0, max(0.0, (busy - ours) / whole)) if whole > 0 else 0.0

    def busiest(self) -> tuple[str, ...]:
        """The names of the programs that take most, now. Blocks for a moment."""
        if self._file is not None:
            return self._told()[1]
        before = self._each()
        time.sleep(LOOK_S)
        took: dict[str, float] = {}
        for key, seconds in self._each().items():
            took[key[1]] = took.get(key[1], 0.0) + seconds - before.get(key, seconds)
        ordered = sorted(took, key=lambda name: -took[name])
        return tuple(name for name in ordered[:NAMED] if took[name] > 0)

    def _times(self) -> tuple[float, float, float]:
        """Seconds of all processors, those that they worked, and those of the candidate and this agent."""
        whole = psutil.cpu_times()
        idle = whole.idle + getattr(whole, "iowait", 0.0) + getattr(whole, "steal", 0.0)
        guests = getattr(whole, "guest", 0.0) + getattr(whole, "guest_nice", 0.0)
        total = sum(whole) - guests  # guests count as user time too
        agent = os.times()
        ours = agent.user + agent.system
        for process in members(self._group):
            with contextlib.suppress(psutil.Error, OSError):
                times = process.cpu_times()
                ours += times.user + times.system
        return total, total - idle, ours

    def _each(self) -> dict[tuple[int, str], float]:
        mine = {os.getpid(), *(process.pid for process in members(self._group))}
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid not in mine:
                    times = process.cpu_times()
                    found[process.pid, process.name()] = times.user + times.system
        return found

    def _told(self) -> tuple[float, tuple[str, ...]]:
        told = json.loads(Path(self._file or "").read_text(encoding="utf-8"))
        return float(told["share"]), tuple(told["busiest"])
