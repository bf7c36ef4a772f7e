"""N requests in flight at once, each on a connection of its own; one request is a wave of one.

Everything but the last byte of each request is with the kernel before the last bytes follow in one
tight loop, so that no queue of ours stands before the server's. Bytes are stamped as they arrive,
those of all streams before any is parsed. A wave ends as soon as one stream has decided against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast
from urllib.parse import urlsplit

import h11

from autotuned.core.model import CUT_WITH_WAVE, Replicate
from autotuned.engine.measure.chat import Answer, ChatRequest, failed, plausible
from autotuned.engine.measure.event_stream import BrokenStream, EventReader, refusal_words

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_HEAD_BYTES = 100 * 1024
REFUSAL_BYTES = 4096
UNREAD_S = 0.25
"""A server that takes no byte for so long reads a request when it comes to it: the queue is its own."""

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Wave:
    """What a wave came to: a replicate a stream, and the inter-token latencies of all its streams."""

    replicates: tuple[Replicate, ...]
    itl_ms: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    """The end of each answer."""


async def send(
    requests: Sequence[ChatRequest],
    *,
    gate_ttft_ms: float,
    timeout_s: float,
    stop_tokens: Sequence[str],
    late_allowed: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> Wave:
    """Send all requests at the same instant and measure their streams. Raises nothing but CancelledError.

    `gate_ttft_ms`: abandoned when more than `late_allowed` streams have no token by then. `timeout_s`:
    for the whole wave. `clock` gives nanoseconds.
    """
    arrived = asyncio.Event()
    streams = [_Stream(request, stop_tokens, gate_ttft_ms, clock, arrived) for request in requests]
    began = time.monotonic()
    try:
        async with asyncio.timeout(min(timeout_s, gate_ttft_ms / 1000)):
            for stream in streams:
                await stream.connect()
        await _hand_over(streams)
        await _decide(streams, arrived, gate_ttft_ms / 1000, began, timeout_s, late_allowed)
    except TimeoutError:
        streams[0].miss_gate()
    except OSError as error:
        streams[0].fail(f"broken stream: {error}")
    finally:
        for stream in streams:
            stream.close()
    first_sent = min(stream.sent for stream in streams)
    itl_ms = tuple(gap for stream in streams for gap in stream.itl_ms())
    if len(streams) == 1:
        return Wave((streams[0].outcome(),), itl_ms, (streams[0].answer.text,))
    return Wave(
        tuple(
            replace(stream.outcome(), stream=number, sent_ms=max(0, stream.sent - first_sent) / 1e6)
            for number, stream in enumerate(streams, start=1)
        ),
        itl_ms,
    )


async def _hand_over(streams: Sequence[_Stream]) -> None:
    """Give all requests to the kernel at the same instant.

    One counts as sent when its last bytes are about to go: a stamp behind that can be later than the answer.
    """
    held = len(streams) > 1
    for stream in streams:
        stream.stamp_sent()
        stream.write(stream.content[:-1] if held else stream.content)
    if not held and not streams[0].unwritten:
        return
    before, left = 0, sum(stream.unwritten for stream in streams)
    while left and left != before:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNREAD_S):
                for stream in streams:
                    await stream.writable.wait()
        before, left = left, sum(stream.unwritten for stream in streams)
    for stream in streams:
        stream.stamp_sent()
        if held:
            stream.write(stream.content[-1:])


async def _decide(
    streams: Sequence[_Stream],
    arrived: asyncio.Event,
    gate_s: float,
    began: float,
    timeout_s: float,
    late_allowed: int,
) -> None:
    """Read until every stream has its outcome, or one has decided against the wave."""
    gate_at, end_at = time.monotonic() + gate_s, began + timeout_s
    while True:
        now = time.monotonic()
        arrived.clear()
        for stream in streams:
            stream.read()
        ended = [stream.replicate for stream in streams if stream.replicate is not None]
        if any(replicate.error or replicate.leaked_token for replicate in ended):
            return
        pending = [stream for stream in streams if stream.replicate is None]
        silent = [stream for stream in pending if stream.answer.first is None]
        gated = len(silent) > late_allowed and gate_s <= timeout_s
        if gated and now >= gate_at:
            for stream in silent:
                stream.miss_gate()
        elif now >= end_at:
            for stream in pending:
                stream.fail(f"timed out after {timeout_s:g} s")
        elif pending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout((gate_at if gated else end_at) - now):
                    await arrived.wait()
            continue
        return


class _Stream(asyncio.Protocol):
    """One request of a wave on its connection. `replicate` is set once the outcome is known."""

    def __init__(
        self,
        request: ChatRequest,
        stop_tokens: Sequence[str],
        gate_ttft_ms: float,
        clock: Clock,
        arrived: asyncio.Event,
    ) -> None:
        self.sent = 0
        self.answer = Answer(stop_tokens)
        self.replicate: Replicate | None = None
        self.writable = asyncio.Event()
        self._request, self._gate_ttft_ms = request, gate_ttft_ms
        self._clock, self._arrived = clock, arrived
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.content = self._encoded()
        self._events = EventReader()
        self._transport: asyncio.Transport | None = None
        self._arrivals: list[tuple[int, bytes]] = []
        self._lost: Exception | None = None
        self._status = 0
        self._refusal = b""
        self._total = 0
        self._stamp = 0

    def _encoded(self) -> bytes:
        url = urlsplit(self._request.url)
        body = json.dumps(self._request.body()).encode()
        headers = [
            ("Host", url.netloc),
            ("Accept", "text/event-stream"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "autotuned"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        request = h11.Request(method="POST", target=url.path, headers=headers)
        parts = [self._http.send(part) for part in (request, h11.Data(body), h11.EndOfMessage())]
        return b"".join(part or b"" for part in parts)

    # --- the connection ----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open the connection. Raises OSError."""
        url = urlsplit(self._request.url)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, url.hostname or "", url.port or 80)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self.writable.set()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def unwritten(self) -> int:
        """Bytes that the kernel has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def stamp_sent(self) -> None:
        self.sent = self._clock()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._arrivals.append((self._clock(), data))
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc
        self._arrivals.append((self._arrivals[-1][0] if self._arrivals else self._stamp, b""))
        self.writable.set()
        self._arrived.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- the answer --------------------------------------------------------------------------------

    def read(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        for stamp, data in arrivals:
            if self.replicate is not None:
                return
            self._stamp = stamp
            try:
                self._take(data)
            except (h11.RemoteProtocolError, BrokenStream) as error:
                self.fail(f"broken stream: {str(error) or type(error).__name__}")

    def _take(self, data: bytes) -> None:
        if not data and self._lost is not None:
            raise BrokenStream(str(self._lost) or type(self._lost).__name__)
        if not data and not self._status:
            message = "Server disconnected without sending a response."
            raise BrokenStream(message)
        self._http.receive_data(data)
        while self.replicate is None:
            event = self._http.next_event()
            if isinstance(event, h11.Response):
                self._head(event)
            elif isinstance(event, h11.Data):
                self._body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._end()
            elif not isinstance(event, h11.InformationalResponse):
                break
        if not data and self.replicate is None:
            message = "the connection ended"
            raise BrokenStream(message)

    def _head(self, response: h11.Response) -> None:
        self._status = response.status_code
        coding = dict(response.headers).get(b"content-encoding", b"identity").decode("latin-1")
        if self._status == 200 and coding != "identity":
            self.fail(f"the answer is packed ({coding}) though identity was asked for")

    def _body(self, chunk: bytes) -> None:
        if self._status != 200:
            self._refusal += chunk
            if len(self._refusal) > REFUSAL_BYTES:
                self._end()
            return
        self._total += len(chunk)
        if self._total > MAX_BODY_BYTES:
            self.fail(f"broken stream: more than {MAX_BODY_BYTES} bytes")
            return
        self.answer.take(chunk, self._events.feed(chunk, self._stamp))
        if self.answer.done:
            self._end()

    def _end(self) -> None:
        if self._status != 200:
            words = " ".join(refusal_words(self._refusal).split())[:200]
            self.fail(f"HTTP {self._status}" + (f": {words}" if words else ""))
            return
        if not self.answer.done:
            self.answer.take(b"", self._events.end(self._stamp))
        replicate = self.answer.replicate(self.sent, self._gate_ttft_ms)
        self.replicate = plausible(replicate, self._request.max_tokens)

    def fail(self, reason: str) -> None:
        self.replicate = self.replicate or failed(reason)

    def miss_gate(self) -> None:
        """No token has come within the gate."""
        gate = f"no token within the gate of {self._gate_ttft_ms:.0f} ms"
        self.replicate = self.replicate or Replicate(error=gate, gate_missed=True)

    def outcome(self) -> Replicate:
        """The replicate; of a stream that ended with its wave, only when its first text came."""
        if self.replicate is not None:
            return self.replicate
        first = self.answer.first
        ttft_ms = None if first is None else (first - self.sent) / 1e6
        return Replicate(error=CUT_WITH_WAVE, ttft_ms=ttft_ms)

    def itl_ms(self) -> list[float]:
        """The gaps between its chunks a token, where the tokens of a whole answer are known."""
        if self.replicate is None or self.replicate.error is not None:
            return []
        tokens = max(1.0, (self.replicate.completion_tokens or 0) / max(1, self.answer.chunks))
        return [gap / tokens for gap in self.answer.gaps_ms]
