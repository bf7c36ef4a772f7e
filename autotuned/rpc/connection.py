"""One client: lines in, answers out in the order of their completion, notifications between them.

Work belongs to the agent, not to a connection: a client that hangs up ends nothing but its own
subscriptions and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping

from autotuned.errors import Busy
from autotuned.rpc import framing
from autotuned.rpc.channel import CALL_BYTES, LARGE_BYTES, Channel, Unframed
from autotuned.rpc.framing import Message
from autotuned.shared import wire

MAX_IN_FLIGHT = 32
MAX_KEPT = 16
TURN_S = 0.005
"""What a call gets before the next line of its client is looked at; most are answered by then."""
LARGE_TURN_S = 1.0
"""The same of a large line, beside which no other large one is read."""
PEER_POLL_S = 1.0
QUIET_S = 0.25
FINISH_S = 2.0
"""What an agent that stops gives calls in flight to answer, and readers to take what waits for them."""

Respond = Callable[["Connection", Message | list[Message]], Awaitable[bytes | None]]


class Connection:
    """A client that is connected now."""

    def __init__(self, channel: Channel, respond: Respond) -> None:
        self._channel, self._respond = channel, respond
        self._in_flight = 0
        self._begun = 0
        self._work: set[asyncio.Task[None]] = set()
        self._after: list[Coroutine[object, None, None]] = []
        self._beside: set[asyncio.Task[None]] = set()
        self._endings: dict[str, Callable[[], None]] = {}

    def notify(self, method: str, params: Mapping[str, object]) -> None:
        """Send a notification; never waits."""
        self._channel.send(framing.encode({"jsonrpc": "2.0", "method": method, "params": params}))

    async def drained(self) -> None:
        """Return once little waits for this client; what it reads sets the pace of a replay."""
        await self._channel.drained()

    def refuse_more(self) -> None:
        """Raise Busy where this connection keeps as much as one may."""
        if len(self._endings) + len(self._after) >= MAX_KEPT:
            message = f"a connection has at most {MAX_KEPT} subscriptions: end one of them"
            raise Busy(message, run_id=None)

    def keep(self, name: str, ending: Callable[[], None]) -> None:
        """Keep this connection open for `name`; `ending` is called when it ends, at the latest with the client."""
        self._endings[name] = ending

    def end(self, name: str) -> bool:
        """End what was kept under `name`; False when there is no such thing."""
        ending = self._endings.pop(name, None)
        if ending is not None:
            ending()
        return ending is not None

    def later(self, work: Coroutine[object, None, None]) -> None:
        """Do `work` beside the calls, after the answer to the present one has been sent."""
        self._after.append(work)

    async def serve(self) -> None:
        """Answer until the client hangs up, sends what cannot be framed, or reads too slowly."""
        try:
            try:
                await self._read_lines()
            except Unframed as error:
                refused = framing.refusal(None, wire.INVALID_REQUEST, str(error))
                self._channel.send(framing.encode(refused))
            else:
                while (self._work or self._endings) and not self._channel.peer_gone():
                    await self._moment({*self._work, *self._beside})
            await self._channel.flushed()
        finally:
            self.close()

    async def finish(self) -> None:
        """Let calls in flight and what waits for a subscriber go out, within a moment; then drop the client.

        Whoever followed the run that this stop has ended gets its result still: a client is dropped once it is quiet.
        """
        for name in list(self._endings):
            self.end(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._quiet()
        await self._channel.flushed(FINISH_S)
        self.close()

    async def _quiet(self) -> None:
        """Return once no call is in flight and none has come for a moment."""
        begun = -1
        while begun != self._begun:
            begun = self._begun
            if self._work or self._beside:
                await asyncio.wait([*self._work, *self._beside])
            await asyncio.sleep(QUIET_S)

    def close(self) -> None:
        """Drop the client. Idempotent."""
        for task in (*self._work, *self._beside):
            task.cancel()
        for work in self._after:
            work.close()
        for name in list(self._endings):
            self.end(name)
        self._channel.abort()

    async def _read_lines(self) -> None:
        while await self._channel.ready():
            while self._in_flight >= MAX_IN_FLIGHT and not self._channel.failed:
                if self._channel.peer_gone():
                    return
                await self._moment(self._work)
            async with self._channel.large:  # becomes several times as much when it is read
                line = self._channel.take()
                if line is None:
                    continue
                large = len(line) > LARGE_BYTES
                task = self._begin(framing.parse_line(line.rstrip(b"\r")), len(line))
                del line
                await asyncio.wait({task}, timeout=LARGE_TURN_S if large else TURN_S)

    @staticmethod
    async def _moment(tasks: set[asyncio.Task[None]]) -> None:
        """Until one of them ends, or it is time to look whether the client is still there."""
        if tasks:
            await asyncio.wait(tasks, timeout=PEER_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(PEER_POLL_S)

    def _begin(self, message: Message | list[Message], weight: int) -> asyncio.Task[None]:
        calls = len(message) if isinstance(message, list) else 1
        weight += calls * CALL_BYTES
        self._channel.hold(weight)
        self._in_flight += calls
        self._begun += 1

        def done(task: asyncio.Task[None]) -> None:
            self._work.discard(task)
            self._channel.hold(-weight)
            self._in_flight -= calls

        task = asyncio.create_task(self._answer(message))
        self._work.add(task)
        task.add_done_callback(done)
        return task

    async def _answer(self, message: Message | list[Message]) -> None:
        reply = await self._respond(self, message)
        if reply is not None:
            self._channel.send(reply)
        while self._after:
            task = asyncio.create_task(self._after.pop(0))
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)
