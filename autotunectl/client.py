"""A small synchronous client of the agent, for other Python programs too: standard library only.

    with Client() as client:
        run = client.call("start", target_context=4000)
        for event in client.events(run_id=run["run_id"], since=0):
            print(event["type"])

Connects when first used; `Client(host="ssh://user@mac")` reaches the agent of another machine. Every
wait has a deadline; every failure is one of the exceptions below, all of them ClientError.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autotunectl.errors import (
    KINDS,
    ApplyRefused,
    BadRequest,
    Busy,
    CallError,
    ClientError,
    Conflict,
    NoAnswer,
    NotFound,
    NotStarted,
    RestoreOutstanding,
    ShuttingDown,
    Unknown,
    Unreachable,
    WrongProtocol,
)
from autotuned import __version__
from autotuned.shared import wire

__all__ = [
    "ApplyRefused", "BadRequest", "Busy", "CallError", "Client", "ClientError", "Conflict", "NoAnswer", "NotFound",
    "NotStarted", "RestoreOutstanding", "ShuttingDown", "Unknown", "Unreachable", "WrongProtocol",
]  # fmt: skip

if TYPE_CHECKING:
    from autotunectl.dial import Line

CONNECT_S = 2.0
CALL_S = 60.0
RECONNECT_S = 30.0
RECONNECT_POLL_S = 0.05
REVIVE_S = 5.0
"""An agent that is gone for so long is not just being restarted."""
QUIET_S = 30.0
"""After so long without an event the agent is asked whether it is still there."""
RESTART = "autotunectl daemon restart"
UPGRADE = "upgrade this client, or go back to its agent with: autotunectl daemon restart"
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Client:
    """One connection to the agent, made when it is first needed.

    `path`: its socket, the usual one by default. `host`: the machine that it is on, reached by ssh.
    `connect_s`: for how long to try where nobody answers; `timeout_s`: for how long to wait for an answer.
    `revive` starts an agent again that died while its events were followed, and came not back by itself.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        host: str | None = None,
        connect_s: float = CONNECT_S,
        timeout_s: float = CALL_S,
        revive: Callable[[], object] | None = None,
    ) -> None:
        self.path = path or wire.socket_path(os.environ)
        self.host = host
        self._connect_s, self._timeout_s = connect_s, timeout_s
        self._revive = revive
        self._socket: socket.socket | None = None
        self._line: Line | None = None
        self._buffer = bytearray()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Idempotent; the next call connects again."""
        if self._line is not None:
            self._line.close()
        elif self._socket is not None:
            self._socket.close()
        self._socket = self._line = None
        self._buffer.clear()

    def take_over(self) -> socket.socket:
        """The connection itself, for who speaks JSON-RPC of their own; connected if need be. Raises Unreachable."""
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def again(self) -> Client:
        """Another connection to the same agent."""
        return Client(
            self.path,
            host=self.host,
            connect_s=self._connect_s,
            timeout_s=self._timeout_s,
            revive=self._revive,
        )

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result. Raises CallError, Unreachable or NoAnswer."""
        return self.request(method, params)

    def request(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> Any:
        """As `call`, with a deadline of its own for the answer."""
        number = next(self._numbers)
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)})
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while True:
            message = self._receive(deadline)
            if message.get("id") == number or ("error" in message and message.get("id") is None):
                return _result(message)

    def check_protocol(self) -> dict[str, Any]:
        """The agent's `version`. Raises WrongProtocol with the remedy where it is another protocol's, and hangs up."""
        try:
            version = self.call("version")
        except Unknown:
            version = None
        theirs = version.get("protocol") if isinstance(version, dict) else None
        if isinstance(version, dict) and theirs == wire.PROTOCOL:
            return version
        self.close()
        if not isinstance(version, dict):
            message = f"what answers at {self.host or self.path} is no agent"
            raise WrongProtocol(message, RESTART)
        message = (
            f"the agent (version {version.get('version')}, pid {version.get('pid')}) speaks protocol {theirs}, "
            f"this client (version {__version__}) {wire.PROTOCOL}"
        )
        newer = isinstance(theirs, int) and theirs > wire.PROTOCOL
        raise WrongProtocol(message, UPGRADE if newer else RESTART)

    def wait(
        self, run_id: str | None = None, *, timeout_s: float | None = None, slice_s: float = 20.0
    ) -> dict[str, Any] | None:
        """The summary of a run once it has ended; None when `timeout_s` passed first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        named = {} if run_id is None else {"run_id": run_id}
        while True:
            left = (
                slice_s if deadline is None else min(slice_s, max(0.0, deadline - time.monotonic()))
            )
            found: dict[str, Any] = self.request(
                "wait", {**named, "timeout_s": left}, timeout_s=left + self._timeout_s
            )
            if not found.get("timed_out"):
                return found
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def events(
        self, *, run_id: str | None = None, since: int | None = None, timeout_s: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Events as they come, after those that are kept since number `since`.

        Connects again by itself when the agent is restarted, and goes on where it was: nothing is lost
        or doubled. Ends when no event came for `timeout_s`, else only by the caller. Raises Unreachable
        or NoAnswer when no agent came back in 30 s, WrongProtocol when another one came back.
        """
        seen, connected, give_up_at = since, False, 0.0
        revive = self._revive
        named = {} if run_id is None else {"run_id": run_id}
        while True:
            with self.again() as other:
                try:
                    other.check_protocol()
                    after = {} if seen is None else {"since": seen}
                    begun = other.call("subscribe", **named, **after)
                    if seen is not None and begun["seq"] < seen and connected:
                        seen = 0  # it came back with a new store, whose numbers begin again
                        continue
                    connected, give_up_at = True, 0.0
                    seen = begun["seq"] if seen is None else seen
                    for event in other.notifications(begun["subscription"], timeout_s=timeout_s):
                        seen = max(seen, event["seq"])
                        yield event
                    return
                except (Unreachable, NoAnswer, ShuttingDown):
                    give_up_at = give_up_at or time.monotonic() + RECONNECT_S
                    if not connected or time.monotonic() >= give_up_at:
                        raise
                    gone_s = time.monotonic() - (give_up_at - RECONNECT_S)
                    if revive is not None and gone_s >= REVIVE_S:
                        revive()
                        revive = None
            time.sleep(RECONNECT_POLL_S)

    def notifications(
        self, subscription: str, *, timeout_s: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """The events of one subscription of this connection, until none came for `timeout_s`.

        Raises Unreachable when the agent hangs up, NoAnswer when it falls silent: after half a minute
        without an event it is asked for its version.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        asked: int | None = None
        while True:
            quiet = time.monotonic() + (QUIET_S if asked is None else self._timeout_s)
            try:
                message = self._receive(quiet if end is None else min(end, quiet), keep=True)
            except NoAnswer:
                if end is not None and time.monotonic() >= end:
                    return
                if asked is not None:
                    self.close()
                    raise
                asked = next(self._numbers)
                self._send({"jsonrpc": "2.0", "id": asked, "method": "version"}, again=False)
                continue
            asked = None
            params = message.get("params", {})
            if message.get("method") == "event" and params.get("subscription") == subscription:
                end = None if timeout_s is None else time.monotonic() + timeout_s
                yield params

    def _send(self, message: dict[str, Any], *, again: bool = True) -> None:
        again = again and self._socket is not None
        try:
            connection = self.take_over()
            connection.settimeout(self._timeout_s)
            connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            lost = self._lost()
            if not again:
                raise lost from None
            self._send(message)  # the agent was restarted between two calls

    def _connect(self) -> socket.socket:
        if self.host is not None:
            return self._dial(self.host)
        deadline = time.monotonic() + self._connect_s
        while True:
            made = socket.socket(socket.AF_UNIX)
            try:
                made.settimeout(self._connect_s)
                made.connect(self.path)
            except OSError as error:
                made.close()
                for_good = isinstance(error, PermissionError) or "too long" in str(error)
                if for_good or time.monotonic() >= deadline:
                    raise Unreachable(*_reason(self.path, error)) from None
                time.sleep(0.02)
            else:
                return made

    def _dial(self, host: str) -> socket.socket:
        from autotunectl import dial

        try:
            self._line = dial.Line(dial.Host.parse(host))
        except dial.BadHost as error:
            raise ClientError(str(error)) from None
        except OSError as error:
            message = f"{host}: ssh cannot be started: {error.strerror}"
            raise Unreachable(message, "install the ssh client, or put it on the PATH") from None
        return self._line.socket

    def _lost(self) -> Unreachable:
        """The connection has ended; why, as far as can be known."""
        message = "the agent hung up"
        if self._line is not None:
            message = f"{self.host}: {self._line.reason()}"
        remedy = _look(self.host) if self.host is not None else "autotunectl doctor"
        self.close()
        return Unreachable(message, remedy)

    def _receive(self, deadline: float, *, keep: bool = False) -> dict[str, Any]:
        """The next message; NoAnswer at the deadline, which ends the connection unless it is to be kept."""
        while (end := self._buffer.find(b"\n")) < 0:
            if self._socket is None or len(self._buffer) > MAX_ANSWER_BYTES:
                message = "the connection to the agent is lost"
                raise Unreachable(message, "autotunectl doctor")
            left = deadline - time.monotonic()
            if left <= 0:
                if not keep:
                    self.close()
                message = "the agent did not answer in time"
                raise NoAnswer(message)
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                raise self._lost()
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            self.close()
            message = f"what answers at {self.host or self.path} does not speak JSON-RPC"
            raise WrongProtocol(message, RESTART)
        return found


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error is not None:
        kind = KINDS.get(error["code"], CallError)
        raise kind(error["code"], error["message"], error.get("data") or {})
    return message["result"]


def _look(host: str) -> str:
    """How to see what is wrong on another machine."""
    from autotunectl.dial import Host

    there = Host.parse(host)
    port = f"-p {there.port} " if there.port else ""
    return f"ssh {port}{there.target} {there.program} doctor"


def _reason(path: str, error: OSError) -> tuple[str, str | None]:
    """Why nobody can be spoken to at `path`, and what to do where starting an agent would not help."""
    if isinstance(error, FileNotFoundError):
        return f"no agent runs: there is no socket at {path}", None
    if isinstance(error, ConnectionRefusedError):
        return f"no agent answers at {path}: it was killed, or is just starting", None
    if isinstance(error, PermissionError):
        return f"{path} may not be opened by this user: {error.strerror}", "autotunectl doctor"
    if "too long" in str(error):
        remedy = f"name a shorter path: --socket, or {wire.SOCKET_VARIABLE}"
        return f"{path}: a socket's path has at most {wire.SUN_PATH_MAX} bytes here", remedy
    return f"{path}: {error.strerror or error}", "autotunectl doctor"
