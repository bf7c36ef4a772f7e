"""A small synchronous client of the agent, for other Python programs too: standard library only.

    with Client() as client:
        run = client.call("start", target_context=4000)
        for event in client.events(run_id=run["run_id"], since=0):
            print(event["type"])

Connects when first used; `Client(host="ssh://user@mac")` reaches the agent of another machine. Every
wait has a deadline; every failure is one of the exceptions below.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from autotuned import wire

if TYPE_CHECKING:
    from autotunectl.dial import Line

CONNECT_S = 2.0
CALL_S = 60.0
RECONNECT_S = 30.0
RECONNECT_POLL_S = 0.05
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ClientError(Exception):
    """The base of what can go wrong."""


class Unreachable(ClientError):
    """No agent answers on the socket; the message says which of the usual reasons it is."""


class NotStarted(Unreachable):
    """An agent was started, and ended or said nothing; the message has its last words."""


class NoAnswer(ClientError):
    """The agent did not answer in time."""


class WrongProtocol(ClientError):
    """Agent and client do not speak the same protocol."""


class CallError(ClientError):
    """The agent refused. `code` is one of `autotuned.wire`, `data` is for programs."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class BadRequest(CallError):
    """A parameter is not usable: `data` names field, value and rule."""


class Busy(CallError):
    """Another run is active: `data["run_id"]`."""


class Conflict(CallError):
    """A live provider or a stranger is in the way: `data["conflicts"]`."""


class NotFound(CallError):
    """No such run, subscription or backup."""


class ApplyRefused(CallError):
    """A recipe that may not be applied: `data["reason"]`."""


class RestoreOutstanding(CallError):
    """A live provider is still owed its restore: `data["lease"]`."""


class ShuttingDown(CallError):
    """The agent is stopping."""


KINDS: Mapping[int, type[CallError]] = {
    wire.INVALID_PARAMS: BadRequest,
    wire.BUSY: Busy,
    wire.PROVIDER_CONFLICT: Conflict,
    wire.NOT_FOUND: NotFound,
    wire.APPLY_REFUSED: ApplyRefused,
    wire.RESTORE_OUTSTANDING: RestoreOutstanding,
    wire.SHUTTING_DOWN: ShuttingDown,
}


class Client:
    """One connection to the agent, made when it is first needed.

    `path`: its socket, the usual one by default. `host`: the machine that it is on, reached by ssh.
    `connect_s`: for how long to try where nobody answers.
    """

    def __init__(
        self, path: str | None = None, *, host: str | None = None, connect_s: float = CONNECT_S
    ) -> None:
        self.path = path or wire.socket_path(os.environ)
        self.host = host
        self._connect_s = connect_s
        self._socket: socket.socket | None = None
        self._line: Line | None = None
        self._buffer = bytearray()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        return Client(self.path, host=self.host, connect_s=self._connect_s)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result. Raises CallError, Unreachable or NoAnswer."""
        return self.request(method, params)

    def request(self, method: str, params: Mapping[str, Any], *, timeout_s: float = CALL_S) -> Any:
        """As `call`, with a deadline of its own for the answer."""
        number = next(self._numbers)
        self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)})
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._receive(deadline)
            if message.get("id") == number or ("error" in message and message.get("id") is None):
                return _result(message)

    def check_protocol(self) -> dict[str, Any]:
        """The agent's `version`. Raises WrongProtocol with the remedy where it is another protocol's."""
        version: dict[str, Any] = self.call("version")
        if version.get("protocol") != wire.PROTOCOL:
            message = (
                f"the agent (version {version.get('version')}) speaks protocol {version.get('protocol')}, this client "
                f"{wire.PROTOCOL}: restart it with: autotunectl daemon restart"
            )
            raise WrongProtocol(message)
        return version

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
                "wait", {**named, "timeout_s": left}, timeout_s=left + CALL_S
            )
            if not found.get("timed_out"):
                return found
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def events(
        self, *, run_id: str | None = None, since: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Events as they come, after those that are kept since number `since`.

        Connects again by itself when the agent is restarted, and goes on where it was: nothing is lost
        or doubled. Ends only by the caller, or with Unreachable when no agent came back in 30 s.
        """
        seen, connected, give_up_at = since, False, 0.0
        named = {} if run_id is None else {"run_id": run_id}
        while True:
            with self.again() as other:
                try:
                    after = {} if seen is None else {"since": seen}
                    begun = other.call("subscribe", **named, **after)
                    connected, give_up_at = True, 0.0
                    seen = begun["seq"] if seen is None else seen
                    for event in other.notifications(begun["subscription"]):
                        seen = max(seen, event["seq"])
                        yield event
                except (Unreachable, ShuttingDown):
                    give_up_at = give_up_at or time.monotonic() + RECONNECT_S
                    if not connected or time.monotonic() >= give_up_at:
                        raise
            time.sleep(RECONNECT_POLL_S)

    def notifications(self, subscription: str) -> Iterator[dict[str, Any]]:
        """The events of one subscription of this connection, until the agent hangs up (Unreachable)."""
        while True:
            message = self._receive(None)
            params = message.get("params", {})
            if message.get("method") == "event" and params.get("subscription") == subscription:
                yield params

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        fresh = self._socket is None
        try:
            self._put(line)
        except OSError:
            lost = self._lost()
            if fresh:
                raise lost from None
            self._send(message)  # the agent was restarted between two calls

    def _put(self, line: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        self._socket.settimeout(CALL_S)
        self._socket.sendall(line)

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
                if (
                    isinstance(error, PermissionError)
                    or "too long" in str(error)
                    or time.monotonic() >= deadline
                ):
                    raise Unreachable(_reason(self.path, error)) from None
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
            raise Unreachable(message) from None
        return self._line.socket

    def _lost(self) -> Unreachable:
        """The connection has ended; why, as far as can be known."""
        message = "the agent hung up"
        if self._line is not None:
            message = f"{self.host}: {self._line.reason()}"
        self.close()
        return Unreachable(message)

    def _receive(self, deadline: float | None) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if self._socket is None or len(self._buffer) > MAX_ANSWER_BYTES:
                message = "the connection to the agent is lost"
                raise Unreachable(message)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
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
        message_in: dict[str, Any] = json.loads(line)
        return message_in


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error is not None:
        kind = KINDS.get(error["code"], CallError)
        raise kind(error["code"], error["message"], error.get("data") or {})
    return message["result"]


def _reason(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no agent runs: there is no socket at {path}"
    if isinstance(error, ConnectionRefusedError):
        return f"no agent answers at {path}: it was killed, or is just starting"
    if isinstance(error, PermissionError):
        return f"{path} may not be opened by this user: {error.strerror}"
    return f"{path}: {error.strerror or error}"
