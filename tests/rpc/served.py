"""A control socket in the test's own loop, with methods of the test behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from autotuned.errors import Busy, NotFound, StoreError
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.rpc.server import Server

PATIENCE_S = 20.0


class EchoParams(Params):
    """Something to give back."""

    value: int = 0


class Methods:
    """Methods that echo, fail in every way, wait, and stream."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)
        self.ended: list[str] = []
        self.echoed: list[int] = []

    def table(self) -> list[Method]:
        """All of them."""
        return [
            Method("echo", "", self.echo),
            Method("wait", "", self.wait),
            Method("busy", "", self.busy),
            Method("missing", "", self.missing),
            Method("broken", "", self.broken),
            Method("store", "", self.store),
            Method("odd", "", self.odd),
            Method("flood", "", self.flood),
            Method("follow", "", self.follow),
        ]

    async def echo(self, _: Connection, params: EchoParams) -> dict[str, Any]:
        self.echoed.append(params.value)
        return params.model_dump()

    async def wait(self, _: Connection, __: Params) -> dict[str, Any]:
        self.arrived.release()
        await self.gate.wait()
        return {"waited": True}

    async def busy(self, _: Connection, __: Params) -> dict[str, Any]:
        message = "run r is active"
        raise Busy(message, run_id="r")

    async def missing(self, _: Connection, __: Params) -> dict[str, Any]:
        message = "x" * 5000
        raise NotFound(message)

    async def broken(self, _: Connection, __: Params) -> dict[str, Any]:
        message = "a secret that stands in the log only"
        raise RuntimeError(message)

    async def store(self, _: Connection, __: Params) -> dict[str, Any]:
        message = "/path: disk full"
        raise StoreError(message, path="/path")

    async def odd(self, _: Connection, __: Params) -> dict[str, Any]:
        return {"nan": float("nan")}

    async def flood(self, connection: Connection, __: Params) -> dict[str, Any]:
        connection.keep("flood", lambda: self.ended.append("flood"))
        for _turn in range(400):
            connection.notify("event", {"text": "x" * 65_536})
        return {}

    async def follow(self, connection: Connection, __: Params) -> dict[str, Any]:
        connection.keep("follow", lambda: self.ended.append("follow"))
        return {}


class Client:
    """A connection that is written to and read from line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, content: Any) -> None:
        """One line."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.writer.write(data + b"\n")
        await self.writer.drain()

    async def line(self) -> Any:
        """The next line, decoded; None at the end."""
        async with asyncio.timeout(PATIENCE_S):
            data = await self.reader.readline()
        return json.loads(data) if data else None

    async def call(self, method: str, **params: Any) -> Any:
        """One call and its answer."""
        await self.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return await self.line()

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Served:
    """The server, its path, and its clients."""

    def __init__(self, path: Path, methods: Methods, server: Server) -> None:
        self.path, self.methods, self.server = path, methods, server
        self._clients: list[Client] = []

    async def client(self) -> Client:
        """A new connection."""
        made = Client(*await asyncio.open_unix_connection(self.path, limit=1 << 25))
        self._clients.append(made)
        return made

    async def close(self) -> None:
        """Hang up everywhere and stop."""
        for client in self._clients:
            await client.close()
        self.methods.gate.set()
        await self.server.close()


@contextlib.asynccontextmanager
async def served(watch_s: float = 30.0, methods: Sequence[Method] = ()) -> AsyncIterator[Served]:
    """A server below a short folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="rpc-", dir="/tmp"))
    made = Methods()
    server = Server(folder / "run" / "s.sock", [*made.table(), *methods], watch_s=watch_s)
    found = Served(folder / "run" / "s.sock", made, server)
    try:
        await server.start()
        yield found
    finally:
        await found.close()
        shutil.rmtree(folder, ignore_errors=True)


async def until(condition: Any, what: str = "the condition holds") -> None:
    """Return once `condition()` is true; fail when it does not become so in time."""
    for _turn in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)
