"""One client: lines in, answers out in the order of their completion, notifications between them.

Work belongs to the agent, not to a connection: a client that hangs up ends nothing but its own
subscriptions. A reader that lets too much wait for it is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from autotuned import wire
from autotuned.rpc import framing

MAX_IN_FLIGHT = 32
PEER_POLL_S = 1.0
FINISH_S = 2.0
"""What an agent that stops gives calls in flight to answer, and readers to take what waits for them."""

Respond = Callable[["Connection", bytes], Awaitable[bytes | None]]


class Connection:
    """A client that is connected now."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, respond: Respond
    ) -> None:
        self._reader, self._writer, self._respond = reader, writer, respond
        self._places = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._work: set[asyncio.Task[None]] = set()
        self._after: list[Coroutine[Any, Any, None]] = []
        self._beside: set[asyncio.Task[None]] = set()
        self._endings: dict[str, Callable[[], None]] = {}

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification; never waits."""
        self._send(framing.encode({"jsonrpc": "2.0", "method": method, "params": params}))

    async def drained(self) -> None:
        """Return once little waits for this client; what it reads sets the pace of a replay."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def keep(self, name: str, ending: Callable[[], None]) -> None:
        """Keep this connection open for `name`; `ending` is called when it ends, at the latest with the client."""
        self._endings[name] = ending

    def end(self, name: str) -> bool:
        """End what was kept under `name`; False when there is no such thing."""
        ending = self._endings.pop(name, None)
        if ending is not None:
            ending()
        return ending is not None

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` beside the calls, after the answer to the present one has been sent."""
        self._after.append(work)

    async def serve(self) -> None:
        """Answer until the client hangs up, sends what cannot be framed, or reads too slowly."""
        try:
            await self._read_lines()
            while (self._work or self._endings) and not self._peer_gone():
                await asyncio.wait(
                    [*self._work, *self._beside],
                    timeout=PEER_POLL_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except (ConnectionError, OSError):
            return
        finally:
            self.close()

    async def finish(self) -> None:
        """Let calls in flight and what waits for a subscriber go out, within a moment; then drop the client."""
        for name in list(self._endings):
            self.end(name)
        waiting = [*self._work, *self._beside]
        if waiting:
            await asyncio.wait(waiting, timeout=FINISH_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._flushed()
        self.close()

    async def _flushed(self) -> None:
        self._writer.transport.set_write_buffer_limits(high=0)
        await self.drained()

    def close(self) -> None:
        """Drop the client. Idempotent."""
        for task in (*self._work, *self._beside):
            task.cancel()
        for work in self._after:
            work.close()
        for name in list(self._endings):
            self.end(name)
        self._writer.close()

    async def _read_lines(self) -> None:
        while not self._writer.is_closing():
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                refused = framing.refusal(
                    None, wire.INVALID_REQUEST, f"a line is at most {wire.MAX_LINE_BYTES} bytes"
                )
                self._send(framing.encode(refused))
                self._writer.close()
                return
            if not line.strip():
                continue
            await self._places.acquire()
            task = asyncio.create_task(self._answer(line.rstrip(b"\r\n")))
            self._work.add(task)
            task.add_done_callback(self._done)

    async def _answer(self, line: bytes) -> None:
        reply = await self._respond(self, line)
        if reply is not None:
            self._send(reply)
        while self._after:
            task = asyncio.create_task(self._after.pop(0))
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        self._places.release()

    def _send(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > wire.MAX_UNSENT_BYTES:
            self._writer.transport.abort()

    def _peer_gone(self) -> bool:
        """True once the other end is closed altogether; one that only stopped writing still reads."""
        if self._writer.is_closing():
            return True
        with contextlib.suppress(OSError, ValueError):
            poller = select.poll()
            poller.register(
                self._writer.get_extra_info("socket").fileno(), select.POLLHUP | select.POLLERR
            )
            return bool(poller.poll(0))
        return True
