"""The tiny process that starts candidates and outlives a killed agent: run as a script.

It speaks JSON lines over one socket with the agent. Candidates are its children, so there is no
instant at which one lives that it does not know. End of file without a goodbye means that the agent
died: every candidate group is killed, a live provider that was drained is brought back, and the
guardian ends. Standard library only, and little of it: it must start in milliseconds and survive
anything; what a restore takes is loaded when it is armed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # an interpreter that knows no package: ours is where this file is
    sys.path.append(os.path.abspath(os.path.join(__file__, "..", "..", "..", "..")))  # noqa: PTH100, PTH118

from autotuned.host.children.marked import marked

if TYPE_CHECKING:
    from autotuned.host.restore.orphans import RestoreDuty

ORPHAN_GRACE_S = 1.5
SWEEP_DEADLINE_S = 5.0
SWEEPS = 50
"""One that starts others as fast as it can is killed so many times at most: never a loop without end."""
LOG_RING_BYTES = 256 * 1024
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


class Log:
    """A candidate's output: the first part goes to the file, of the rest only the end is kept."""

    def __init__(self, path: str, max_bytes: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
        self._room = max(0, max_bytes - LOG_RING_BYTES)
        self._ring = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        """Keep `data` within the bound; a full disk costs the log, not the run."""
        head, tail = data[: self._room], data[self._room :]
        self._room -= len(head)
        with contextlib.suppress(OSError):
            os.write(self._file, head)
        self._ring += tail
        if len(self._ring) > 2 * LOG_RING_BYTES:
            self._trim()

    def close(self) -> None:
        """Append the kept end, and say how much is missing between."""
        self._trim()
        with contextlib.suppress(OSError):
            if self._left_out:
                os.write(self._file, f"\n... {self._left_out} bytes left out ...\n".encode())
            os.write(self._file, bytes(self._ring))
        os.close(self._file)

    def _trim(self) -> None:
        surplus = len(self._ring) - LOG_RING_BYTES
        if surplus > 0:
            self._left_out += surplus
            del self._ring[:surplus]


class Candidate:
    """One child, its process group and its log."""

    def __init__(self, number: int, order: dict[str, Any]) -> None:
        self.number = number
        self.log = Log(order["log"], order["log_max_bytes"])
        try:
            self.process = subprocess.Popen(
                order["argv"],
                env=order["env"],
                cwd=order["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_default_signals,  # noqa: PLW1509 - this process has one thread
                bufsize=0,
            )
        except BaseException:
            self.log.close()
            raise
        assert self.process.stdout is not None  # noqa: S101 - PIPE was asked for
        self.output = self.process.stdout.fileno()
        os.set_blocking(self.output, False)
        self.group = self.process.pid
        self.mark = order.get("mark", "")
        """The assignment in its environment that its children inherit, wherever they go."""
        self.code: int | None = None
        self.kill_at: float | None = None
        """When SIGKILL is due, by the monotonic clock; None until a stop is asked for."""

    def look(self) -> bool:
        """True once, when the leader has exited; its code is in `code` then, negative for a signal.

        Where the system allows, the leader stays a zombie until `close`, so that nobody else can get
        its group's id meanwhile.
        """
        if self.code is not None:
            return False
        if hasattr(os, "waitid"):
            found = os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                self.code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        else:
            self.code = self.process.poll()
        return self.code is not None

    def signal(self, number: int) -> None:
        """Send to the whole group; a group that is gone is no error (macOS: EPERM when only zombies are left)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)

    def alone(self) -> bool:
        """True when no process of the group is left but the leader's zombie."""
        return not any(state != "Z" for state in _states_of_group(self.group))

    def sweep(self) -> None:
        """Kill what has left the group and still carries the mark; nothing of the group is left."""
        for _ in range(SWEEPS if self.mark else 0):
            found = marked(self.mark)
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)

    def pump(self) -> bool:
        """Move what waits in the pipe into the log, a bounded amount at a time; False at its end."""
        for _ in range(16):
            try:
                data = os.read(self.output, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.log.write(data)
        return True

    def close(self) -> None:
        """Keep the last words, reap the leader, close the log."""
        self.pump()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait()
        self.log.close()


class Guardian:
    """The loop: orders in, reports out, candidates watched."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._inbox = bytearray()
        self._selector = selectors.DefaultSelector()
        self._candidates: dict[int, Candidate] = {}
        self._farewell = False
        self._duty: RestoreDuty | None = None
        self._inflight: set[str] = set()
        self._selector.register(channel, selectors.EVENT_READ)
        self._wake, wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the agent says goodbye or is gone; then nothing of ours is left."""
        while self._turn(self._patience_s()) and not self._farewell:
            pass
        for candidate in self._candidates.values():
            self._begin_stop(candidate, ORPHAN_GRACE_S)
        self._selector.unregister(self._channel)
        deadline = time.monotonic() + ORPHAN_GRACE_S + SWEEP_DEADLINE_S
        while self._candidates and time.monotonic() < deadline:
            self._turn(self._patience_s())
        if not self._farewell:
            for path in self._inflight if not self._candidates else ():
                with contextlib.suppress(OSError):  # they have ended in this boot
                    os.unlink(path)  # noqa: PTH108
            if self._duty is not None:
                self._duty.fulfil()

    def _turn(self, patience_s: float | None) -> bool:
        """Wait for something, deal with all of it; False when the agent is gone."""
        agent_there = True
        for key, _ in self._selector.select(patience_s):
            if key.fileobj is self._channel:
                agent_there = self._listen()
            elif isinstance(key.data, Candidate):
                if not key.data.pump():
                    self._selector.unregister(key.fileobj)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
        for candidate in list(self._candidates.values()):
            self._advance(candidate)
        return agent_there

    def _listen(self) -> bool:
        """Take orders; False at end of file."""
        try:
            data = self._channel.recv(1 << 16)
        except OSError:
            data = b""
        self._inbox += data
        while (end := self._inbox.find(b"\n")) >= 0:
            line = bytes(self._inbox[:end])
            del self._inbox[: end + 1]
            self._obey(json.loads(line))
        return bool(data)

    def _patience_s(self) -> float | None:
        """Until the next group is due for SIGKILL; moments where a dead leader's group must be emptied."""
        stopping = [
            candidate for candidate in self._candidates.values() if candidate.kill_at is not None
        ]
        if not stopping:
            return None
        if any(candidate.code is not None for candidate in stopping):
            return 0.002
        due = min(candidate.kill_at or 0.0 for candidate in stopping) - time.monotonic()
        return max(0.002, due)

    def _obey(self, order: dict[str, Any]) -> None:
        number = order.get("candidate", 0)
        match order["do"]:
            case "start":
                try:
                    candidate = self._candidates[number] = Candidate(number, order)
                except (OSError, ValueError, subprocess.SubprocessError) as error:
                    code = getattr(error, "errno", 0)
                    self._report(event="failed", candidate=number, errno=code, text=str(error))
                    return
                self._inflight.add(f"{candidate.mark.partition('=')[2]}/run/inflight.json")
                self._selector.register(candidate.output, selectors.EVENT_READ, candidate)
                if self._duty is not None:
                    with contextlib.suppress(OSError):
                        self._duty.candidate(candidate.group)
                self._report(event="started", candidate=number, pid=candidate.group)
            case "stop":
                if number in self._candidates:
                    self._begin_stop(self._candidates[number], order["grace_s"])
                else:
                    self._report(event="gone", candidate=number)
            case "arm":
                refusal = None
                try:
                    self._duty = _duty(order)
                except Exception as error:  # noqa: BLE001 - told to the agent, which then drains nothing
                    refusal = f"{type(error).__name__}: {error}"
                self._report(event="armed", candidate=0, refusal=refusal)
            case "disarm":
                self._duty = None
            case "goodbye":
                self._farewell = True
            case other:
                self._report(event="unknown", candidate=0, text=str(other))

    def _begin_stop(self, candidate: Candidate, grace_s: float) -> None:
        kill_at = time.monotonic() + grace_s
        if candidate.kill_at is None:
            candidate.signal(signal.SIGTERM)
            candidate.kill_at = kill_at
        candidate.kill_at = min(candidate.kill_at, kill_at)

    def _advance(self, candidate: Candidate) -> None:
        """Report an exit; carry a stop on until no process of the group is left."""
        if candidate.look():
            self._report(event="exited", candidate=candidate.number, code=candidate.code)
        if candidate.kill_at is None:
            return
        if candidate.code is not None and candidate.alone():
            candidate.sweep()
            if candidate.output in self._selector.get_map():
                self._selector.unregister(candidate.output)
            candidate.close()
            del self._candidates[candidate.number]
            self._report(event="gone", candidate=candidate.number)
        elif candidate.code is not None or time.monotonic() >= candidate.kill_at:
            candidate.signal(signal.SIGKILL)

    def _report(self, **report: object) -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(report).encode() + b"\n")


def _states_of_group(group: int) -> list[str]:
    """The state letters of all processes of a group, from /proc or from `ps`."""
    if os.path.isdir("/proc/self"):  # noqa: PTH112 - pathlib costs start-up time
        states = []
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                        fields = file.read().rpartition(b")")[2].split()
                    if int(fields[2]) == group:
                        states.append(chr(fields[0][0]))
        return states
    listed = subprocess.run(
        ["/bin/ps", "-A", "-o", "pgid=,state="],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [row[1][0] for row in rows if len(row) == 2 and row[0] == str(group)]


def _duty(order: dict[str, Any]) -> RestoreDuty:
    """The restore that an agent's death would leave to us, loaded and ready."""
    from autotuned.host.restore import orphans  # noqa: PLC0415 - only who is armed needs it

    return orphans.RestoreDuty(order["folder"], order["lock"], order["environ"])


def _default_signals() -> None:
    for number in (*IGNORED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def main() -> None:
    """`guardian.py FD`: serve the agent at the other end of that socket."""
    for (
        number
    ) in IGNORED:  # by a handler, which unlike SIG_IGN no program inherits that is started here
        signal.signal(number, lambda *_: None)
    Guardian(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
