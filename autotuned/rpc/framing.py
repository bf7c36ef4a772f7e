"""Bytes of one line to JSON-RPC messages, or to the error that answers them.

Everything hostile ends here: no UTF-8, no JSON, too deep, too large, doubled keys, numbers that JSON
does not have, halves of characters. Pure; must not know any method.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeGuard

from autotuned.shared import wire

MAX_SAFE_INTEGER = 2**53 - 1
MAX_ID_LENGTH = 128
LONGEST_NUMBER = 400
_MEMBERS = {"jsonrpc", "method", "params", "id"}
_STRING = re.compile(rb'"[^"]*"?')
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Call:
    """One well-formed request; a list of params is never empty.

    `wanted` is False for a notification: it gets no answer, not even an error.
    """

    method: str
    params: dict[str, object] | list[object]
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
    bounds = _out_of_bounds(line)
    if bounds is not None:
        return bounds
    try:
        content = json.loads(
            line.decode("utf-8", errors="strict"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        if _SURROGATE.search(line):
            json.dumps(
                content, ensure_ascii=False
            ).encode()  # half a surrogate pair is no character
    except UnicodeEncodeError:
        return Refusal(wire.PARSE_ERROR, "an escape that is half a character")
    except UnicodeDecodeError:
        return Refusal(wire.PARSE_ERROR, "not UTF-8")
    except ValueError as error:
        return Refusal(wire.PARSE_ERROR, f"not JSON: {error}"[:200])
    if isinstance(content, list):
        if not content:
            return Refusal(wire.INVALID_REQUEST, "a batch holds at least one call")
        if len(content) > wire.MAX_BATCH:
            return Refusal(wire.INVALID_REQUEST, f"a batch holds at most {wire.MAX_BATCH} calls")
        return [_message(element) for element in content]
    return _message(content)


def refusal(
    identity: str | int | None, code: int, message: str, data: object = None
) -> dict[str, object]:
    """The error object; `data` only where there is some."""
    error = {"code": code, "message": message, **({} if data is None else {"data": data})}
    return {"jsonrpc": "2.0", "id": identity, "error": error}


def encode(message: object) -> bytes:
    """One line. Raises ValueError or TypeError for what JSON cannot hold."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def encode_batch(lines: Sequence[bytes]) -> bytes | None:
    """The one line that answers a batch, out of the lines that answer its calls; None where there are none."""
    return b"[" + b",".join(line.rstrip(b"\n") for line in lines) + b"]\n" if lines else None


def _message(content: object) -> Message:
    if not isinstance(content, dict):
        return Refusal(wire.INVALID_REQUEST, "a call is a JSON object")
    identity = content.get("id")
    if not _is_id(identity):
        return Refusal(
            wire.INVALID_REQUEST,
            f"id is a string of at most {MAX_ID_LENGTH} characters, an integer or null",
        )
    if content.get("jsonrpc") != "2.0":
        return Refusal(wire.INVALID_REQUEST, 'jsonrpc is not "2.0"', identity)
    if not isinstance(content.get("method"), str):
        return Refusal(wire.INVALID_REQUEST, "method is not a string", identity)
    if content.keys() - _MEMBERS:
        return Refusal(
            wire.INVALID_REQUEST, "a call has only jsonrpc, id, method and params", identity
        )
    params = content.get("params", {})
    if not isinstance(params, (dict, list)):
        return Refusal(wire.INVALID_REQUEST, "params is not an object", identity)
    return Call(content["method"], params or {}, identity, wanted="id" in content)


def _is_id(value: object) -> TypeGuard[str | int | None]:
    if value is None:
        return True
    if isinstance(value, str):
        return len(value) <= MAX_ID_LENGTH
    return isinstance(value, int) and not isinstance(value, bool)


def _out_of_bounds(line: bytes) -> Refusal | None:
    """Whether it nests too deep or holds too many values, found without nesting or making them ourselves."""
    opening = line.count(b"[") + line.count(b"{")
    if opening <= wire.MAX_DEPTH and opening + line.count(b",") <= wire.MAX_VALUES:
        return None
    many = Refusal(wire.INVALID_REQUEST, f"a line holds at most {wire.MAX_VALUES} values")
    plain = line.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is left of quotes delimits
    if plain.count(b'"') > 4 * wire.MAX_VALUES:  # a value has two of them, and its key two more
        return many
    plain = _STRING.sub(b"", plain)
    if _too_deep(plain.translate(None, _NO_BRACKETS)):
        return Refusal(wire.PARSE_ERROR, f"nested deeper than {wire.MAX_DEPTH} levels")
    values = plain.count(b"[") + plain.count(b"{") + plain.count(b",")
    return many if values > wire.MAX_VALUES else None


def _too_deep(brackets: bytes) -> bool:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > wire.MAX_DEPTH:
            return True
        if depth <= 0:  # whatever follows the end of the first value is no JSON
            return False
    return False


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
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
    number = float(digits) if len(digits) <= LONGEST_NUMBER else float("inf")
    if number in (float("inf"), float("-inf")):
        message = "a number beyond what a double holds"
        raise ValueError(message)
    return number


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)
