"""Lines that a hostile client may send: seeded, so that what broke once can be sent again."""

from __future__ import annotations

import json
import random
from typing import Any

from autotuned.shared import wire

METHODS = (
    "status", "version", "runs", "result", "trials", "wait", "cancel", "stale", "compare", "report",
    "unsubscribe", "schedule.get", "no.such", "", "rpc.", "__class__", "pull.wait",
)  # fmt: skip
NAMES = ("run_id", "limit", "since", "timeout_s", "subscription", "before", "x", "", "__proto__")
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**53, 10**400, 1.5, 1e308, "", "\x00", "\ud800", "🂡" * 40, "../../etc/passwd",
    "%s%n", "a" * 4000, [], [[]], {}, {"a": {"b": {}}}, list(range(300)),
)  # fmt: skip
REFUSED = {"start": {"port": 0}, "apply": {"run_id": "none"}, "revert": {"backup": "none"}}
"""Calls that act, with what they are refused for: the fuzz is of the socket, not of runs."""


def call(rng: random.Random) -> dict[str, Any]:
    """A call that may be right."""
    method = rng.choice(METHODS)
    params: Any = {rng.choice(NAMES): rng.choice(ODD) for _ in range(rng.randrange(3))}
    if method in ("wait", "pull.wait") or rng.random() < 0.1:
        params = {**params, "timeout_s": 0.01}
    made = {
        "jsonrpc": "2.0",
        "id": rng.choice((1, "a", None, -5)),
        "method": method,
        "params": params,
    }
    if rng.random() < 0.3:
        made.pop(rng.choice(list(made)))
    if rng.random() < 0.2:
        made[rng.choice(("id", "jsonrpc", "params", "extra", "method"))] = rng.choice(ODD)
    return made


def text(content: Any) -> bytes:
    """As JSON, with whatever Python would write beyond it."""
    return json.dumps(content).encode()


def broken(rng: random.Random, line: bytes) -> bytes:
    """The same with some bytes changed, cut, doubled or turned into what JSON does not have."""
    at = rng.randrange(len(line) + 1)
    match rng.randrange(7):
        case 0:
            line = line[:at]
        case 1:
            line = line[:at] + rng.randbytes(rng.randrange(1, 9)) + line[at:]
        case 2:
            line = line[:at] + line[at + rng.randrange(5) :]
        case 3:
            line = line.replace(b"{", b'{"id": 1, "id": 2, ', 1)
        case 4:
            line = line.replace(
                b"1", rng.choice((b"NaN", b"Infinity", b"1e999", b"9" * 400, b"0x1"))
            )
        case 5:
            line = line.replace(b'"a"', b'"\\ud800"')
        case _:
            line = rng.choice((b"\xef\xbb\xbf", b"\xff", b"\x00", b"\r", b",", b"]")) + line
    return line.replace(b"\n", b" ")


def frame(rng: random.Random) -> bytes:
    """One line without its end, of a few bytes up to a few thousand."""
    kind = rng.random()
    if kind < 0.35:
        return text(call(rng))
    if kind < 0.7:
        return broken(rng, text(call(rng)))
    if kind < 0.8:
        return text([call(rng) for _ in range(rng.choice((0, 1, 2, 31, 32, 33, 100)))])
    if kind < 0.9:
        opening = rng.choice((b"[", b'{"a":', b"[{", b'[[],{"b":'))
        return opening * rng.choice((1, 63, 64, 65, 500)) + rng.choice((b"", b"]", b"0"))
    return rng.randbytes(rng.randrange(1, 200)).replace(b"\n", b" ")


def huge(rng: random.Random) -> bytes:
    """About a mebibyte of whatever costs most to read."""
    size = wire.MAX_LINE_BYTES - 200
    body = rng.choice(
        (
            b"[" + b"1," * (size // 2) + b"1]",
            b"[" + b"[]," * (size // 3) + b"[]]",
            b"[" + b"{}," * (size // 3) + b"{}]",
            b"[" + b'"",' * (size // 3) + b'""]',
            b"{" + b",".join(b'"%d":0' % number for number in range(size // 12)) + b"}",
            b"[" * size,
            b'"' + b"\\u0001" * (size // 6) + b'"',
            b'"' + "🂡".encode() * (size // 4) + b'"',
            b"1" * size,
            b"1." + b"3" * size,
            b'"' + b'\\"' * (size // 2) + b'"',
            b" " * size,
        )
    )
    envelope = rng.choice(
        (b"%s", b'{"jsonrpc":"2.0","id":1,"method":"wait","params":{"run_id":%s}}')
    )
    return envelope.replace(b"%s", body) + b"x" * rng.choice((0, 0, 0, 3000))
