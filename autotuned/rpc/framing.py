"""Bytes of one line to JSON-RPC messages, or to the error that answers them.

Everything hostile ends here: no UTF-8, no JSON, too deep, too large, doubled keys, numbers that JSON
does not have. Pure; must not know any method.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from autotuned import wire

MAX_SAFE_INTEGER = 2**53 - 1
MAX_ID_LENGTH = 128
_MEMBERS = {"jsonrpc", "method", "params", "id"}
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """One well-formed request. `wanted` is False for a notification: it gets no answer."""

    method: str
    params: dict[str, Any]
    id: str | int | None
    wanted: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error that answers what is no well-formed request."""

    code: int
    message: str
    id: str | int | None = None


Message = Call | Refusal


def parse_line(line: bytes) -> Message | list[Message]:
    """One message, or the messages of a batch, in order. Never raises."""
    if len(line) > wire.MAX_LINE_BYTES:
        return Refusal(wire.INVALID_REQUEST, f"a line is at most {wire.MAX_LINE_BYTES} bytes")
    if _depth(line) > wire.MAX_DEPTH:
        return Refusal(wire.PARSE_ERROR, f"nested deeper than {wire.MAX_DEPTH} levels")
    try:
        content = json.loads(
            line.decode("utf-8", errors="strict"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError:
        return Refusal(wire.PARSE_ERROR, "not UTF-8")
    except (ValueError, RecursionError) as error:
        return Refusal(wire.PARSE_ERROR, f"not JSON: {error}"[:200])
    if isinstance(content, list):
        if not content:
            return Refusal(wire.INVALID_REQUEST, "a batch holds at least one call")
        if len(content) > wire.MAX_BATCH:
            return Refusal(wire.INVALID_REQUEST, f"a batch holds at most {wire.MAX_BATCH} calls")
        return [_message(element) for element in content]
    return _message(content)


def answer(identity: str | int | None, result: Any) -> dict[str, Any]:
    """The success object."""
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def refusal(
    identity: str | int | None, code: int, message: str, data: Any = None
) -> dict[str, Any]:
    """The error object; `data` only where there is some."""
    error = {"code": code, "message": message}
    return {
        "jsonrpc": "2.0",
        "id": identity,
        "error": error if data is None else {**error, "data": data},
    }


def encode(message: Any) -> bytes:
    """One line. Raises ValueError for what JSON cannot hold."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _message(content: Any) -> Message:
    if not isinstance(content, dict):
        return Refusal(wire.INVALID_REQUEST, "a call is a JSON object")
    identity = content.get("id")
    if not _is_id(identity):
        return Refusal(wire.INVALID_REQUEST, "id is a string, an integer or null")
    if content.get("jsonrpc") != "2.0":
        return Refusal(wire.INVALID_REQUEST, 'jsonrpc is not "2.0"', identity)
    if not isinstance(content.get("method"), str):
        return Refusal(wire.INVALID_REQUEST, "method is not a string", identity)
    if content.keys() - _MEMBERS:
        return Refusal(
            wire.INVALID_REQUEST, "a call has only jsonrpc, id, method and params", identity
        )
    params = content.get("params", {})
    if isinstance(params, list) and not params:
        params = {}
    if isinstance(params, list):
        return Refusal(wire.INVALID_PARAMS, "params are given by name", identity)
    if not isinstance(params, dict):
        return Refusal(wire.INVALID_REQUEST, "params is not an object", identity)
    return Call(content["method"], params, identity, wanted="id" in content)


def _is_id(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH and not any(
            "\ud800" <= letter <= "\udfff" for letter in value
        )
    return isinstance(value, int) and not isinstance(value, bool)


def _depth(line: bytes) -> int:
    """The deepest nesting, found without nesting ourselves."""
    depth = deepest = 0
    for found in _STRUCTURE.finditer(line):
        match found[0]:
            case b"[" | b"{":
                depth += 1
                deepest = max(deepest, depth)
            case b"]" | b"}":
                depth -= 1
            case _:
                continue  # a string: its brackets mean nothing
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        message = "a key is given twice"
        raise ValueError(message)
    return content


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > MAX_SAFE_INTEGER:
        message = "an integer beyond 2^53"
        raise ValueError(message)
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        message = "a number beyond what a double holds"
        raise ValueError(message)
    return number


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)
