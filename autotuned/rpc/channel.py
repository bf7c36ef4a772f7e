"""Bytes of one client, in and out, within bounds: whole lines in, answers out, and never too much of either.

A line has a longest length and a longest time; a reader that lets too much wait for it is cut off. All
clients together have a bound too (`Crowd`): beyond it the heaviest is cut off first. Must not know JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import select

from autotuned.shared import wire

LINE_S = 10.0
"""From the first byte of a line to its newline."""
STALLED_S = 10.0
"""A client whose answers wait after its last call, and who takes none of them for so long, is gone."""
PIPELINED_BYTES = 64 * 1024
"""No more is read ahead while a whole line waits for its turn."""
CHUNK_BYTES = 64 * 1024
CROWD_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 32 * 1024
LARGE_BYTES = 128 * 1024
CALL_BYTES = 4096
"""What a call in flight weighs beside its line."""
_BLANK = b" \t\r\n"


class Unframed(Exception):
    """What arrives is no line; the message says why."""


class Crowd:
    """All clients of the agent, and the memory that they may hold together."""

    def __init__(self, most: int = CROWD_BYTES) -> None:
        self._most = most
        self.channels: set[Channel] = set()
        self.large = asyncio.Lock()
        self.scratch = memoryview(bytearray(CHUNK_BYTES))
        """Where bytes arrive before they are a client's own; used within one callback only."""

    def weigh(self, channel: Channel) -> None:
        """Cut off the heaviest while all together weigh too much; small ones are never the reason."""
        if channel.weight() <= SMALL_BYTES:
            return
        weights = {one: one.weight() for one in self.channels}
        total = sum(weights.values())
        while total > self._most and weights:
            heaviest = max(weights, key=weights.__getitem__)
            total -= weights.pop(heaviest)
            heaviest.cut(f"all clients together may have {self._most} bytes under way")


class Channel(asyncio.BufferedProtocol):
    """One connection. `ready` and `take` give what arrives, `send` never waits."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._searched = 0
        self._ended = False
        self._problem: str | None = None
        self._paused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.gone = asyncio.Event()
        self.held = 0
        """Bytes of lines that were taken and are not answered yet."""

    # --- in -----------------------------------------------------------------------------------------

    async def ready(self) -> bool:
        """Return once a whole line waits; False when the client has sent its last. Raises Unframed."""
        while self._problem is None:
            if self._newline() >= 0:
                return True
            if self._ended:
                return False
            self._news.clear()
            await self._news.wait()
        raise Unframed(self._problem)

    def take(self) -> bytes | None:
        """The line that waits, never a blank one; None where the client has been cut off meanwhile."""
        end = self._newline()
        if end < 0:
            return None
        with memoryview(self._inbox) as inbox:
            line = bytes(inbox[:end])
        del self._inbox[: end + 1]
        self._searched = 0
        self._look()
        return line

    @property
    def large(self) -> contextlib.AbstractAsyncContextManager[None]:
        """To be held while the line that waits is read and answered: where it is large, by one client at a time."""
        return self._crowd.large if self._newline() > LARGE_BYTES else contextlib.nullcontext()

    @property
    def failed(self) -> bool:
        """True once no more lines come, whatever is sent."""
        return self._problem is not None

    def _newline(self) -> int:
        """Where the first line that is not blank ends; -1 where it has not ended."""
        if not self._searched and self._inbox[:1] and self._inbox[0] in _BLANK:
            blank = len(self._inbox) - len(self._inbox.lstrip(_BLANK))
            del self._inbox[:blank]
        end = self._inbox.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._inbox)
        return end

    def _look(self) -> None:
        """Whether a line is begun, whole or too long: read on, wait, or give up."""
        end = self._newline()
        whole = end >= 0
        length = end if whole else len(self._inbox)
        if length > wire.MAX_LINE_BYTES + 1:  # one more for the \r of a \r\n
            self._fail(f"a line is at most {wire.MAX_LINE_BYTES} bytes")
            return
        self._time(begun=bool(self._inbox) and not whole)
        self._pause(whole and len(self._inbox) >= PIPELINED_BYTES)

    def _time(self, *, begun: bool) -> None:
        if not begun:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            message = f"a line arrives whole within {LINE_S:g} s"
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(LINE_S, self._fail, message)

    def _pause(self, wanted: bool) -> None:
        if self._transport is None or wanted == self._paused or self._transport.is_closing():
            return
        self._paused = wanted
        if wanted:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _fail(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._inbox.clear()
        self._time(begun=False)
        self._pause(True)
        self._news.set()

    # --- out ----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send, now or when the client reads; one that lets too much wait is cut off."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self.unsent > wire.MAX_UNSENT_BYTES:
            self.abort()
        else:
            self._crowd.weigh(self)

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    async def drained(self) -> None:
        """Return once little waits for this client, or it is gone."""
        await self._writable.wait()

    async def flushed(self, at_most_s: float | None = None) -> None:
        """Return once all has been read, the client is gone, has stalled, or the time is over."""
        left = at_most_s
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)
        while (before := self.unsent) and not self.gone.is_set():
            patience = STALLED_S if left is None else min(STALLED_S, left)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._writable.wait()
            if left is not None:
                left -= patience
            if self.unsent >= before or (left is not None and left <= 0):
                return

    # --- the whole ----------------------------------------------------------------------------------

    def weight(self) -> int:
        """Bytes of memory that this client holds, about."""
        return len(self._inbox) + self.held + self.unsent

    def hold(self, weight: int) -> None:
        """Count what a line that was taken holds; negative once it is answered."""
        self.held += weight
        if weight > 0:
            self._crowd.weigh(self)

    def cut(self, why: str) -> None:
        """End it with a word of why, where that can be said at once."""
        if self.unsent:
            self.abort()
        else:
            self._fail(why)

    def abort(self) -> None:
        """Drop the client and what waits for it. Idempotent."""
        self._time(begun=False)
        self._inbox.clear()
        if self._transport is not None:
            self._transport.abort()

    def peer_gone(self) -> bool:
        """True once the other end is closed altogether; one that only stopped writing still reads."""
        if self._transport is None or self._transport.is_closing():
            return True
        with contextlib.suppress(OSError, ValueError):
            poller = select.poll()
            number = self._transport.get_extra_info("socket").fileno()
            poller.register(number, select.POLLHUP | select.POLLERR)
            return bool(poller.poll(0))
        return True

    # --- what asyncio calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a socket's transport is one
        self._transport = transport
        self._crowd.channels.add(self)

    def get_buffer(self, _: int) -> memoryview:
        return self._crowd.scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._problem is not None:
            return
        self._inbox += self._crowd.scratch[:nbytes]
        self._look()
        self._crowd.weigh(self)
        self._news.set()

    def eof_received(self) -> bool:
        """The client sends no more; it may still read."""
        self._ended = True
        self._news.set()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _: Exception | None) -> None:
        self._ended = True
        self._crowd.channels.discard(self)
        self._time(begun=False)
        self._writable.set()
        self._news.set()
        self.gone.set()
