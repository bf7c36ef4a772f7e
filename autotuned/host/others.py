"""What other programs take beside a candidate: the processors, and memory that known model servers hold.

They are named, never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from autotuned.host.find import is_apart
from autotuned.host.ports import members

LOOK_S = 0.2
NAMED = 3
MEMORY_SHARE = 0.1
"""Of the machine's memory, from which a server is told of."""
KNOWN = {
    "ollama": ("Ollama", "ollama stop MODEL, or quit Ollama"),
    "lm studio": ("LM Studio", "lms unload --all, or quit LM Studio"),
    "lmstudio": ("LM Studio", "lms unload --all, or quit LM Studio"),
    "vllm": ("vLLM", "kill {pid}"),
    "llama-server": ("llama-server", "kill {pid}"),
    "mlx_lm.server": ("mlx-lm", "kill {pid}"),
    "mlx_lm": ("mlx-lm", "kill {pid}"),
}
"""By what stands in the first words of its command line: its name, and how it is stopped."""


class OtherPrograms:
    """Counts from its making. `AUTOTUNED_BUSY_FILE` names a file that tells `{share, busiest}` instead, for
    tests and for containers, which see the processors of their host."""

    def __init__(self, group: int, environ: Mapping[str, str] = os.environ) -> None:
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


def beside(environ: Mapping[str, str], marker: str, known: Collection[int]) -> list[str]:
    """A sentence for each known model server that holds a good part of memory.

    `known` are processes that a run stops or names itself; candidates carry `marker`.
    `AUTOTUNED_LIVE_HOME` leaves out the processes of other homes, as for the live provider. Blocks.
    """
    whole = psutil.virtual_memory().total
    sentences = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            share = process.memory_info().rss / whole
            server = _server(process.cmdline()) if share > MEMORY_SHARE else None
            if server is None or _is_known(process, known) or is_apart(process, marker, environ):
                continue
            name, stop = server
            sentences.append(
                f"{name} (pid {process.pid}) holds {share:.0%} of memory beside the candidates: "
                f"{stop.format(pid=process.pid)}"
            )
    return sentences


def _server(argv: list[str]) -> tuple[str, str] | None:
    """The server that this command line starts, by its program or the module or script it runs."""
    for word in argv[:3]:
        name = Path(word).name.casefold()
        for known, server in KNOWN.items():
            if name == known or name.startswith((f"{known}-", f"{known}.", f"{known} ")):
                return server
    return None


def _is_known(process: psutil.Process, known: Collection[int]) -> bool:
    return process.pid in known or any(parent.pid in known for parent in process.parents())
