"""A server that sends exactly the bytes that a test says, when it says: for what real servers do rarely.

Each connection is handed to a `Script` once the request's head and body have arrived. One a test, on
a free port of the loopback address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def raw_server(script: Script) -> AsyncIterator[int]:
    """Serve `script` until left; its port."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            request = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", request, re.IGNORECASE)
            request += await reader.readexactly(int(length[1]) if length else 0)
            await script(request, writer)
        writer.close()
        with contextlib.suppress(*gone):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


def sends(*pieces: bytes, head: bytes = HEAD) -> Script:
    """These pieces one by one, each alone in its packet, and then the end of the connection."""

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in (head, *pieces):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)  # so that the pieces arrive apart

    return script


def stalls(*pieces: bytes, head: bytes = HEAD) -> Script:
    """These pieces, and then nothing more until the client goes."""

    async def script(request: bytes, writer: asyncio.StreamWriter) -> None:
        await sends(*pieces, head=head)(request, writer)
        await asyncio.wait_for(writer.wait_closed(), 30)

    return script


def event(content: Any) -> bytes:
    """One event of the stream."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def text(words: str | None, field: str = "content") -> bytes:
    """A chunk of visible text."""
    return event({"choices": [{"index": 0, "delta": {field: words}}]})


def usage(completion: Any, prompt: Any = 1900, **more: Any) -> bytes:
    """The usage chunk."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return event({"choices": [], "usage": counts})
