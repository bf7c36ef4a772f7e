"""A small synchronous client of the agent, for other Python programs too: standard library only.

    with Client() as client:
        run = client.call("start", target_context=4000)
        for event in client.events(run_id=run["run_id"], since=0):
            print(event["type"])

Connects when first used. Every wait has a deadline; every failure is one of the exceptions below.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from autotuned import wire

CONNECT_S = 2.0
CALL_S = 60.0
RECONNECT_S = 30.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class ClientError(Exception):
    """The base of what can go wrong."""


class Unreachable(ClientError):
    """No agent answers on the socket; the message says which of the usual reasons it is."""


class NoAnswer(ClientError):
    """The agent did not answer in time."""


class WrongProtocol(ClientError):
    """Agent and client do not speak the same protocol."""


class CallError(ClientError):
    """The agent refused. `code` is one of `autotuned.wire`, `data` is for programs."""

    def __init__(self, code: int, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Client:
    """One connection to the agent, made when it is first needed."""

    def __init__(self, path: str | None = None, *, connect_s: float = CONNECT_S) -> None:
        self.path = path or wire.socket_path(os.environ)
        self._connect_s = connect_s
        self._socket: socket.socket | None = None
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
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()

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
        seen = since
        while True:
            with Client(
                self.path, connect_s=RECONNECT_S if seen is not None else self._connect_s
            ) as other:
                named = {} if run_id is None else {"run_id": run_id}
                begun = other.call(
                    "subscribe", **named, **({} if seen is None else {"since": seen})
                )
                seen = begun["seq"] if seen is None else seen
                with contextlib.suppress(Unreachable):
                    for event in other.notifications(begun["subscription"]):
                        seen = max(seen, event["seq"])
                        yield event

    def notifications(self, subscription: str) -> Iterator[dict[str, Any]]:
        """The events of one subscription of this connection, until the agent hangs up (Unreachable)."""
        while True:
            message = self._receive(None)
            params = message.get("params", {})
            if message.get("method") == "event" and params.get("subscription") == subscription:
                yield params

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        if self._socket is None:
            self._socket = self._connect()
        try:
            self._socket.settimeout(CALL_S)
            self._socket.sendall(line)
        except OSError:
            self.close()  # the agent was restarted between two calls
            self._socket = self._connect()
            self._socket.sendall(line)

    def _connect(self) -> socket.socket:
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
                self.close()
                message = "the agent hung up"
                raise Unreachable(message)
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message_in: dict[str, Any] = json.loads(line)
        return message_in


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error is not None:
        raise CallError(error["code"], error["message"], error.get("data") or {})
    return message["result"]


def _reason(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no agent runs: there is no socket at {path}"
    if isinstance(error, ConnectionRefusedError):
        return f"no agent answers at {path}: it was killed, or is just starting"
    if isinstance(error, PermissionError):
        return f"{path} may not be opened by this user: {error.strerror}"
    return f"{path}: {error.strerror or error}"
