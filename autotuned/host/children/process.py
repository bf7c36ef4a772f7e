"""Candidates as children of the guardian, seen from the agent.

Everything is event-driven: a stop returns within moments of the last process's death. If the guardian
itself is killed, its candidates count as exited and their groups are killed from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotuned.host.children.marked import marked

GUARDIAN = Path(__file__).with_name("guardian.py")
START_DEADLINE_S = 30.0
STOP_MARGIN_S = 10.0
"""Beyond its grace a stop may take this long; a process that even SIGKILL does not end is left and told."""
LOST = -signal.SIGKILL


class Child:
    """One candidate: the leader of a group that the guardian watches."""

    def __init__(self, owner: Processes, number: int) -> None:
        self._owner, self._number = owner, number
        self.exit_code: int | None = None
        """None while it lives; negative for a signal."""
        self._pid: int | None = None
        self.started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exited = asyncio.Event()
        self.gone = asyncio.Event()

    @property
    def pid(self) -> int:
        """The leader of the group, and the group's id."""
        assert self._pid is not None  # noqa: S101 - a child is handed out once it has started
        return self._pid

    async def exited(self) -> int:
        """Wait until the leader has exited; the code."""
        await self._exited.wait()
        return self.exit_code if self.exit_code is not None else LOST

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to the group, SIGKILL after `grace_s`; returns when no process of it is left.

        Idempotent, and safe to call when it is dead already. Sweeps helpers that outlived their leader.
        """
        if self.gone.is_set():
            return
        self._owner.order({"do": "stop", "candidate": self._number, "grace_s": grace_s})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + STOP_MARGIN_S):
                await self.gone.wait()

    def learn(self, report: Mapping[str, Any]) -> None:
        match report["event"]:
            case "started":
                self._pid = int(report["pid"])
                if not self.started.done():
                    self.started.set_result(report["pid"])
            case "failed":
                if not self.started.done():
                    self.started.set_exception(OSError(report["errno"], report["text"]))
                self.finish(LOST)
            case "exited":
                self.exit_code = report["code"]
                self._exited.set()
            case _:  # gone
                self.finish(LOST)

    def finish(self, code: int) -> None:
        """Nothing of it is left; `code` counts where none was reported."""
        self.exit_code = code if self.exit_code is None else self.exit_code
        self._exited.set()
        self.gone.set()

    def abandon(self) -> None:
        """The guardian is dead: kill the group from here."""
        if not self.started.done():
            self.started.set_exception(OSError("the guardian died"))
        if self._pid is not None and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        self.finish(LOST)


class Processes:
    """Starts candidates through one guardian, itself started with the first of them."""

    def __init__(self, marker: str, marker_value: str) -> None:
        self._marker = {marker: marker_value}
        self._mark = f"{marker}={marker_value}"
        self._children: dict[int, Child] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._duty: dict[str, object] | None = None
        self._lock = -1
        self._armed: asyncio.Future[str | None] | None = None
        self._closing = False
        self._lost = False
        """The guardian has hung up: it is dead, or about to be, before its end can be seen."""
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None

    @property
    def guardian_pid(self) -> int:
        """The pid that every candidate has as its parent; the agent's own until the guardian runs."""
        return self._guardian.pid if self._guardian is not None else os.getpid()

    async def open(self) -> None:
        """Start the guardian, where none runs, so that `guardian_pid` is true. Raises OSError."""
        if self._guardian is not None and self._guardian.poll() is None and not self._lost:
            return
        if self._writer is not None and self._listener is not None:
            # A guardian has died: what was its is given up before anything new could be mistaken for it.
            self._writer.close()
            await asyncio.gather(self._listener, return_exceptions=True)
        ours, theirs = socket.socketpair()
        kept = [theirs.fileno(), *([self._lock] if self._duty is not None else [])]
        with theirs:
            # No child of the loop: asyncio would kill it at its own end, and it is to outlive that.
            self._guardian = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-I", "-S", "-B", str(GUARDIAN), str(theirs.fileno())],
                pass_fds=kept,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        self._lost = False
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._listener = asyncio.create_task(self._listen(reader), name="guardian")
        if self._duty is not None:
            await self._order_duty()

    async def arm(self, duty: Mapping[str, object], lock: int) -> None:
        """Have a guardian that shares the lock `lock` restore the live provider if this agent dies.

        `duty` is `{folder, environ}`: where the journal is, and the environment for launchctl. Raises OSError.
        """
        if self._guardian is not None:
            await self._dismiss()
        self._duty, self._lock = dict(duty), lock
        await self.open()

    async def _order_duty(self) -> None:
        self._armed = asyncio.get_running_loop().create_future()
        self.order({"do": "arm", "lock": self._lock, **(self._duty or {})})
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                refusal = await self._armed
        except TimeoutError:
            refusal = "it does not answer"
        if refusal is not None:
            message = f"the guardian cannot be armed: {refusal}"
            raise OSError(message)

    async def disarm(self) -> None:
        """Nothing is owed any more; a guardian without a run to guard goes home. Idempotent."""
        self._duty = None
        self.order({"do": "disarm"})
        if self._closing:
            await self._dismiss()

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
        await self.open()
        number = max(self._children, default=0) + 1
        child = self._children[number] = Child(self, number)
        self.order(
            {
                "do": "start",
                "candidate": number,
                "argv": list(argv),
                "env": {**env, **self._marker},
                "mark": self._mark,
                "cwd": str(cwd),
                "log": str(log),
                "log_max_bytes": log_max_bytes,
            }
        )
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await asyncio.shield(child.started)
        except BaseException:
            self.order({"do": "stop", "candidate": number, "grace_s": 0})
            raise
        return child

    async def stop_all(self) -> None:
        for child in self._children.values():
            await child.stop(0)

    async def close(self) -> None:
        """Stop whatever still runs, then let the guardian go, unless it is armed. Idempotent."""
        await self.stop_all()
        self._closing = True
        if self._duty is None:
            await self._dismiss()

    async def _dismiss(self) -> None:
        guardian, self._guardian = self._guardian, None
        if guardian is None or self._writer is None or self._listener is None:
            return
        self.order({"do": "goodbye"})
        self._writer.close()
        try:
            await asyncio.to_thread(guardian.wait, STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            guardian.kill()
            await asyncio.to_thread(guardian.wait)
        await asyncio.gather(self._listener, return_exceptions=True)

    def order(self, order: Mapping[str, object]) -> None:
        """Send one order; a guardian that is gone has nothing left to obey it with."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(order).encode() + b"\n")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                report = json.loads(line)
                if report["event"] == "armed" and self._armed is not None:
                    if not self._armed.done():
                        self._armed.set_result(report["refusal"])
                elif report["candidate"] in self._children:
                    self._children[report["candidate"]].learn(report)
        self._lost = True
        left = [child for child in self._children.values() if not child.gone.is_set()]
        for child in left:
            child.abandon()
        if left:  # and what has left their groups
            await asyncio.to_thread(sweep_orphans, *self._mark.split("=", 1))


def sweep_orphans(marker: str, value: str) -> int:
    """Kill candidates that a crash left behind; how many there were. psutil verifies each pid's start time."""
    found = []
    for pid in marked(f"{marker}={value}"):
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
            found[-1].kill()
    psutil.wait_procs(found, timeout=STOP_MARGIN_S)
    return len(found)
