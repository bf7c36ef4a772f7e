"""The control socket: a door that only this user can open.

It appears under its name complete, comes back when somebody removes it, and never takes the place
of what is not a stale socket of ours. Must not know what is said behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from autotuned.errors import AlreadyRunning, AutotunedError, UnsafePath
from autotuned.host.files import private_folder
from autotuned.rpc.channel import Channel, Crowd
from autotuned.rpc.connection import Connection
from autotuned.rpc.dispatch import Dispatcher
from autotuned.rpc.method import Method
from autotuned.shared import wire

DESCRIPTORS = 4096
RESERVED = 64
"""Descriptors that no client gets: to end a run and bring a live provider back takes some."""
WATCH_S = 30.0
ACCEPT_AGAIN_S = 1.0

log = structlog.get_logger(__name__)


class Server:
    """The socket and everybody connected to it. `watch_s`: how often it looks after its own file."""

    def __init__(self, path: Path, methods: Sequence[Method], *, watch_s: float = WATCH_S) -> None:
        self._path, self._watch_s = path, watch_s
        self._dispatcher = Dispatcher(methods)
        self._crowd = Crowd()
        self._places = wire.MAX_CONNECTIONS
        self._listener: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._clients: dict[asyncio.Task[None], Connection | None] = {}

    async def start(self) -> None:
        """Listen.

        Raises UnsafePath with the mend for a path that is too long, a folder that others may enter
        or a name that is taken by another thing than a stale socket; AlreadyRunning where somebody
        answers there.
        """
        self._places = min(wire.MAX_CONNECTIONS, max(1, _descriptors() - RESERVED))
        self._listen()
        self._watcher = asyncio.create_task(self._watch(), name="socket watch")

    async def close(self) -> None:
        """Take the socket away if it is still ours, let calls in flight end, drop everybody. Idempotent."""
        await _stop(self._watcher)
        if self._is_ours():
            self._path.unlink(missing_ok=True)
        self._identity = None
        await _stop(self._accepting)
        if self._listener is not None:
            self._listener.close()
        connections = [found for found in self._clients.values() if found is not None]
        await asyncio.gather(*(connection.finish() for connection in connections))
        for task in list(self._clients):
            await _stop(task)

    # --- the door ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """A listening socket that appears under its name complete: 0600, and already answering."""
        partial = self._path.with_name(f".{secrets.token_hex(3)}")
        more = max(0, len(os.fsencode(partial)) - len(os.fsencode(self._path)))
        if len(os.fsencode(self._path)) + more > wire.SUN_PATH_MAX:
            why = (
                f"a socket path has at most {wire.SUN_PATH_MAX - more} bytes here; "
                f"set {wire.SOCKET_VARIABLE} to a shorter one"
            )
            raise UnsafePath(self._path, why)
        private_folder(self._path.parent)
        _refuse_what_is_not_stale(self._path)
        listener = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o177)
            try:
                listener.bind(str(partial))
            finally:
                os.umask(before)
            listener.listen(wire.MAX_CONNECTIONS)
            listener.setblocking(False)
            partial.replace(self._path)
            found = self._path.lstat()
        except OSError as error:
            listener.close()
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise UnsafePath(self._path, f"cannot listen there: {error.strerror}") from error
        self._identity = found.st_dev, found.st_ino
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name="socket")

    def _is_ours(self) -> bool:
        try:
            found = self._path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    async def _watch(self) -> None:
        """Come back under our name when somebody has removed or replaced the socket file."""
        while True:
            await asyncio.sleep(self._watch_s)
            if self._is_ours():
                continue
            former, listener = self._accepting, self._listener
            try:
                self._listen()
            except AutotunedError as error:
                log.error("the socket file is gone; cannot listen again", reason=error.message)
                continue
            log.warning("the socket file was removed; listening again", path=str(self._path))
            await _stop(former)
            if listener is not None:
                listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        """Let clients in, one by one; with no descriptor left they wait in the backlog."""
        loop, failing = asyncio.get_running_loop(), False
        while True:
            try:
                peer, _ = await loop.sock_accept(listener)
            except OSError as error:
                if not failing:
                    log.error("cannot accept clients", reason=error.strerror)
                failing = True
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            failing = False
            if len(self._clients) >= self._places or not is_same_user(peer):
                peer.close()
                continue
            task = asyncio.create_task(self._serve(peer), name="client")
            self._clients[task] = None
            task.add_done_callback(self._clients.pop)

    async def _serve(self, peer: socket.socket) -> None:
        channel = Channel(self._crowd)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: channel, peer)
        except OSError:
            peer.close()
            return
        connection = Connection(channel, self._dispatcher.respond)
        task = asyncio.current_task()
        if task is not None:
            self._clients[task] = connection
        await connection.serve()


def is_same_user(peer: socket.socket) -> bool:
    """Whether the process at the other end runs as our user; False where the system does not say."""
    try:
        if sys.platform == "darwin":
            # SOL_LOCAL, LOCAL_PEERCRED: struct xucred begins with its version and the uid
            version, uid = struct.unpack_from("II", peer.getsockopt(0, 1, 76))
            return bool(version == 0 and uid == os.geteuid())
        _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except (OSError, struct.error):
        return False
    return bool(uid == os.geteuid())


def _refuse_what_is_not_stale(path: Path) -> None:
    """Only a socket of ours at which nobody answers may be replaced."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnsafePath(path, f"cannot be examined: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        why = f"is no socket; move it away, or set {wire.SOCKET_VARIABLE} to another path"
        raise UnsafePath(path, why)
    if found.st_uid != os.geteuid():
        raise UnsafePath(path, f"belongs to uid {found.st_uid}, not to {os.geteuid()}; remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # its backlog is full: alive
        except OSError:
            return
    message = f"{path}: another program answers there; stop it, or set {wire.SOCKET_VARIABLE} to another path"
    raise AlreadyRunning(message, path=str(path))


def _descriptors() -> int:
    """How many we may have, raised so that all clients fit in; launchd starts a job with 256."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if most == resource.RLIM_INFINITY else min(DESCRIPTORS, most)
    if now != resource.RLIM_INFINITY and now < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DESCRIPTORS if now == resource.RLIM_INFINITY else now


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
