"""From one line to the line that answers it: every call reaches its method, every failure its code.

jsonrpcserver finds the method of a request that framing has let through, calls it and makes the answer,
or none for a notification. An answer is always a JSON-RPC object; of a bug it tells no more than the
number under which the log has it. Must not know sockets.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from jsonrpcserver import Error, Success, async_dispatch_to_serializable
from pydantic import BaseModel, ValidationError

from autotuned.errors import AutotunedError, ConfigError, invalid, unknown
from autotuned.rpc import framing
from autotuned.rpc.connection import TURN_S, Connection
from autotuned.rpc.method import Method
from autotuned.shared import failures, wire

LONGEST_MESSAGE = 1000
LONGEST_VALUE = 16 * 1024

log = structlog.get_logger(__name__)


class Dispatcher:
    """The table of methods, ready to be called by name."""

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = _Methods({method.name: _adapted(method) for method in methods})

    async def respond(
        self, connection: Connection, message: framing.Message | list[framing.Message]
    ) -> bytes | None:
        """The line that answers a message or a batch; None where nothing is to be answered. Never raises."""
        if not isinstance(message, list):
            return await self._one(connection, message)
        room = wire.MAX_UNSENT_BYTES

        async def within(one: framing.Message) -> bytes | None:
            """The answer to one call of a batch, as long as all of them together can be sent."""
            nonlocal room
            answer = await self._one(connection, one)
            room -= len(answer or b"")
            if answer is None or room >= 0:
                return answer
            told = (
                f"the answers of a batch are at most {wire.MAX_UNSENT_BYTES} bytes: ask in several"
            )
            return framing.encode(framing.refusal(one.id, wire.INVALID_REQUEST, told))

        calls: list[asyncio.Task[bytes | None]] = []
        try:
            for one in message:  # most end within their turn: not all are in memory at once
                calls.append(asyncio.create_task(within(one)))
                await asyncio.wait(calls[-1:], timeout=TURN_S)
            answers = await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
        return framing.encode_batch([answer for answer in answers if answer is not None])

    async def _one(self, connection: Connection, message: framing.Message) -> bytes | None:
        if isinstance(message, framing.Refusal):
            return framing.encode(framing.refusal(message.id, message.code, message.message))
        request: dict[str, object] = {"method": message.method, "params": message.params}
        if message.wanted:
            request["id"] = message.id
        reply = await async_dispatch_to_serializable(
            "",
            self._methods,
            context=connection,
            # framing has read and validated the line, within its bounds
            deserializer=lambda _: request,
            validator=lambda _: None,
        )
        try:
            return None if reply is None else framing.encode(reply)
        except (ValueError, TypeError) as error:
            return framing.encode(framing.refusal(message.id, *_incident(message.method, error)))


class _Methods(dict[str, Callable[..., Awaitable[object]]]):
    """Methods by name; one that is not there answers that."""

    def __missing__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def absent(*_: object, **__: object) -> object:
            return Error(wire.METHOD_NOT_FOUND, f"there is no method {name[:60]!r}")

        return absent


def _adapted(method: Method) -> Callable[..., Awaitable[object]]:
    takes = method.params

    async def call(connection: Connection, /, *positional: object, **params: object) -> object:
        if positional:
            return Error(wire.INVALID_PARAMS, "params are given by name")
        try:
            _bounded(params)
            checked = params if method.raw else _validated(method.name, takes, params)
            answer = method.handler(connection, checked)
            if method.acts:  # it goes on to its end when the client hangs up meanwhile
                work = asyncio.ensure_future(answer)
                # nobody may be left to hear it
                work.add_done_callback(lambda done: done.cancelled() or done.exception())
                answer = asyncio.shield(work)
            return Success(await answer)
        except AutotunedError as error:
            return _told(method.name, error)
        except Exception as error:  # noqa: BLE001 - logged with an incident number, told by that alone
            return Error(*_incident(method.name, error))

    return call


def _bounded(params: Mapping[str, object]) -> None:
    """Raise for words that mean nothing at this length, before messages repeat them."""
    for name, value in params.items():
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            rule = f"is longer than {LONGEST_VALUE:,} characters"
            raise ConfigError(name, f"{value[:200]}…", rule)


def _told(method: str, error: AutotunedError) -> object:
    """An error that a caller may be told about, under its code."""
    code = failures.CODES.get(error.kind, wire.INTERNAL_ERROR)
    if code == wire.INTERNAL_ERROR:
        log.error("method failed", method=method, kind=error.kind, reason=error.message)
    data = {name: _brief(value) for name, value in error.data.items()}
    if code == wire.INTERNAL_ERROR:
        data = {"kind": error.kind, **data}
    if code == wire.INVALID_PARAMS:
        data = {"exit_reason": error.kind, "run_id": None, **data}
    return Error(code, error.message[:LONGEST_MESSAGE], data)


def _brief(value: object) -> object:
    """A value as it is, or of a huge one as much as tells which one is meant."""
    text = repr(value)
    return value if len(text) <= LONGEST_VALUE else f"{text[:200]}…"


def _incident(method: str, error: Exception) -> tuple[int, str, dict[str, str]]:
    """Code, message and data of a bug; what it was stands in the log only."""
    incident = secrets.token_hex(4)
    log.error("method failed", method=method, incident=incident, exc_info=error)
    message = f"a bug: incident {incident} in the agent's log"
    return wire.INTERNAL_ERROR, message, {"incident": incident}


def _validated(method: str, takes: type[BaseModel], params: Mapping[str, object]) -> BaseModel:
    for name, value in params.items():  # before each one of thousands is examined
        if name not in takes.model_fields:
            raise unknown(name, value, f"is not a parameter of {method}", takes.model_fields)
    try:
        return takes.model_validate(params)
    except ValidationError as error:
        raise invalid(error) from None
