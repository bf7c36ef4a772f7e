"""The control socket: a door that only this user can open, and behind it JSON-RPC 2.0.

jsonrpcserver dispatches what our framing has let through; every answer is a JSON-RPC object or a
closed connection. Must not know what the methods do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from jsonrpcserver import Error, Success, async_dispatch_to_serializable
from pydantic import ValidationError

from autotuned import wire
from autotuned.errors import (
    AutotunedError,
    Busy,
    ConfigError,
    NotFound,
    ProviderConflict,
    ProviderMissing,
    RestoreOutstanding,
    ShuttingDown,
    UnsafePath,
)
from autotuned.host.files import private_folder
from autotuned.rpc import framing
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method

DESCRIPTORS = 4096
WATCH_S = 30.0
CODES: Mapping[type[AutotunedError], int] = {
    ConfigError: wire.INVALID_PARAMS,
    ProviderMissing: wire.INVALID_PARAMS,
    ProviderConflict: wire.PROVIDER_CONFLICT,
    Busy: wire.BUSY,
    NotFound: wire.NOT_FOUND,
    RestoreOutstanding: wire.RESTORE_OUTSTANDING,
    ShuttingDown: wire.SHUTTING_DOWN,
}

log = structlog.get_logger(__name__)


class Server:
    """The socket and everybody connected to it."""

    def __init__(self, path: Path, methods: Sequence[Method]) -> None:
        self._path = path
        self._dispatch = {method.name: self._adapted(method) for method in methods}
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._identity: tuple[int, int] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises UnsafePath with the mend for a path that is too long or a folder that others may enter."""
        limit = len(f".{os.getpid()}")
        if len(os.fsencode(self._path)) + limit > wire.SUN_PATH_MAX:
            message = (
                f"{self._path}: a socket path has at most {wire.SUN_PATH_MAX - limit} bytes here; "
                f"set {wire.SOCKET_VARIABLE} to a shorter one"
            )
            raise UnsafePath(message, path=str(self._path))
        private_folder(self._path.parent)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        await self._listen()
        self._watcher = asyncio.create_task(self._watch(), name="socket watch")

    async def close(self) -> None:
        """Take the socket away if it is still ours, and drop everybody. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            if self._is_ours():
                self._path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.close()
        self._server = None

    # --- the door ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        listener = self._bind()
        self._server = await asyncio.start_unix_server(
            self._welcome, sock=listener, limit=wire.MAX_LINE_BYTES + 2
        )

    def _bind(self) -> socket.socket:
        """A listening socket that appears under its name complete: 0600, and already answering."""
        private = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        listener = socket.socket(socket.AF_UNIX)
        try:
            private.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener.bind(str(private))
            finally:
                os.umask(before)
            listener.listen(wire.MAX_CONNECTIONS)
            private.replace(self._path)  # we hold the agent's lock: whatever stood there is stale
            found = self._path.lstat()
        except OSError as error:
            listener.close()
            message = f"{self._path}: cannot listen there: {error.strerror}"
            raise UnsafePath(message, path=str(self._path)) from error
        self._identity = found.st_dev, found.st_ino
        return listener

    def _is_ours(self) -> bool:
        try:
            found = self._path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    async def _watch(self) -> None:
        """Come back under our name when somebody has removed or replaced the socket file."""
        while True:
            await asyncio.sleep(WATCH_S)
            if not self._is_ours():
                log.warning("the socket file was removed; listening again", path=str(self._path))
                if self._server is not None:
                    self._server.close()
                try:
                    await self._listen()
                except UnsafePath as error:
                    log.error("cannot listen again", reason=error.message)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= wire.MAX_CONNECTIONS or not _is_same_user(
            writer.get_extra_info("socket")
        ):
            writer.transport.abort()
            return
        connection = Connection(reader, writer, self._respond)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    # --- what is said behind it ------------------------------------------------------------------------

    async def _respond(self, connection: Connection, line: bytes) -> bytes | None:
        parsed = framing.parse_line(line)
        if not isinstance(parsed, list):
            return _encoded(await self._one(connection, parsed))
        replies = await asyncio.gather(*(self._one(connection, message) for message in parsed))
        answers = [reply for reply in replies if reply is not None]
        return _encoded(answers or None)

    async def _one(self, connection: Connection, message: framing.Message) -> dict[str, Any] | None:
        if isinstance(message, framing.Refusal):
            return framing.refusal(message.id, message.code, message.message)
        if not message.wanted and message.method not in self._dispatch:
            return None
        if message.method not in self._dispatch:
            return framing.refusal(
                message.id, wire.METHOD_NOT_FOUND, f"there is no method {message.method[:60]!r}"
            )
        call = {
            "jsonrpc": "2.0",
            "method": message.method,
            "params": message.params,
            "id": message.id or 0,
        }
        reply: Any = await async_dispatch_to_serializable(
            "",
            self._dispatch,
            context=connection,
            deserializer=lambda _: call,
            validator=lambda _: None,
        )
        return {**reply, "id": message.id} if message.wanted else None

    def _adapted(self, method: Method) -> Any:
        async def call(connection: Connection, /, **params: Any) -> Any:
            try:
                checked = params if method.validates_itself else _validated(method, params)
                return Success(await method.handler(connection, checked))
            except AutotunedError as error:
                code = next(
                    (CODES[kind] for kind in type(error).__mro__ if kind in CODES),
                    wire.INTERNAL_ERROR,
                )
                return Error(code, error.message, dict(error.data))
            except Exception:
                incident = secrets.token_hex(4)
                log.exception("method failed", method=method.name, incident=incident)
                return Error(
                    wire.INTERNAL_ERROR,
                    f"a bug: incident {incident} in the agent's log",
                    {"incident": incident},
                )

        return call


def _validated(method: Method, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return method.params.model_validate(params).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        rule = (
            f"is not a parameter of {method.name}"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        raise ConfigError(field, params.get(field), rule.removeprefix("Input ")) from None


def _encoded(reply: Any) -> bytes | None:
    if reply is None:
        return None
    try:
        return framing.encode(reply)
    except (ValueError, TypeError):
        log.exception("an answer that JSON cannot hold")
        return framing.encode(
            framing.refusal(None, wire.INTERNAL_ERROR, "the answer cannot be written as JSON")
        )


def _is_same_user(peer: socket.socket) -> bool:
    try:
        if sys.platform == "darwin":
            version, uid = struct.unpack_from(
                "II", peer.getsockopt(0, 1, 76)
            )  # SOL_LOCAL, LOCAL_PEERCRED: xucred
            return bool(version == 0 and uid == os.geteuid())
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return False
    return bool(uid == os.geteuid())
