"""From bytes to messages: nothing raises, and the limits are exact."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.rpc import framing
from autotuned.rpc.framing import Call, Refusal, parse_line
from autotuned.shared import wire

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
members = st.sampled_from(["jsonrpc", "id", "method", "params"]) | st.text(max_size=3)
requests = st.dictionaries(members, json_values | st.just("2.0"), max_size=5)


def is_message(found: Any) -> bool:
    many = found if isinstance(found, list) else [found]
    return bool(many) and all(isinstance(one, Call | Refusal) for one in many)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(line: bytes) -> None:
    assert is_message(parse_line(line))


@settings(max_examples=200)
@given(requests | st.lists(requests, max_size=3))
def test_whatever_is_json_becomes_calls_or_refusals_that_can_be_answered(content: Any) -> None:
    found = parse_line(json.dumps(content).encode())
    assert is_message(found)
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, Refusal):
            framing.encode(framing.refusal(one.id, one.code, one.message))


def call(**more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": "status", "id": 1, **more}).encode()


def test_a_well_formed_call_is_taken_whole() -> None:
    assert parse_line(call(params={"a": 1})) == Call("status", {"a": 1}, 1, wanted=True)
    assert parse_line(call(id="x")) == Call("status", {}, "x", wanted=True)
    assert parse_line(call(id=None)) == Call("status", {}, None, wanted=True)
    notification = b'{"jsonrpc": "2.0", "method": "status"}'
    assert parse_line(notification) == Call("status", {}, None, wanted=False)


def test_a_line_of_one_mebibyte_is_read_and_one_byte_more_is_not() -> None:
    room = wire.MAX_LINE_BYTES - len(call(params={"a": ""}))
    assert isinstance(parse_line(call(params={"a": "x" * room})), Call)
    assert parse_line(call(params={"a": "x" * (room + 1)})) == Refusal(
        wire.INVALID_REQUEST, f"a line is at most {wire.MAX_LINE_BYTES} bytes"
    )


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_64_levels_are_read_and_65_are_not(opening: bytes, closing: bytes) -> None:
    def nested(levels: int) -> bytes:
        inner = opening * (levels - 2) + b"0" + closing * (levels - 2)
        return b'{"jsonrpc":"2.0","method":"m","id":1,"params":{"x":' + inner + b"}}"

    assert isinstance(parse_line(nested(wire.MAX_DEPTH)), Call)
    refused = parse_line(nested(wire.MAX_DEPTH + 1))
    assert refused == Refusal(wire.PARSE_ERROR, f"nested deeper than {wire.MAX_DEPTH} levels")
    assert isinstance(parse_line(opening * 300_000), Refusal)


def test_brackets_within_strings_are_no_levels() -> None:
    tricky = "[" * 200 + '\\"' + "{" * 200 + "\\"
    assert isinstance(parse_line(call(params={"a": tricky, "b": [tricky]})), Call)
    assert isinstance(parse_line(b'"' + b"[" * 100), Refusal)


def test_a_batch_of_32_is_read_and_one_of_33_or_of_none_is_not() -> None:
    full = parse_line(b"[" + b",".join([call()] * wire.MAX_BATCH) + b"]")
    assert isinstance(full, list)
    assert len(full) == wire.MAX_BATCH
    assert isinstance(parse_line(b"[" + b",".join([call()] * 33) + b"]"), Refusal)
    assert isinstance(parse_line(b"[]"), Refusal)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (b"", wire.PARSE_ERROR, "not JSON"),
        (b"\xff", wire.PARSE_ERROR, "not UTF-8"),
        (b"{", wire.PARSE_ERROR, "not JSON"),
        (b"\xef\xbb\xbf" + call(), wire.PARSE_ERROR, "BOM"),
        (call(params={"a": 0}).replace(b"0}", b"NaN}"), wire.PARSE_ERROR, "NaN is no JSON"),
        (call(params={"a": 0}).replace(b"0}", b"-Infinity}"), wire.PARSE_ERROR, "is no JSON"),
        (call(params={"a": 0}).replace(b"0}", b"1e999}"), wire.PARSE_ERROR, "double"),
        (call(params={"a": 2**53}), wire.PARSE_ERROR, "beyond 2^53"),
        (call(params={"a": 0}).replace(b"0}", b"9" * 5000 + b"}"), wire.PARSE_ERROR, "2^53"),
        (call(params={"a": "\ud800"}), wire.PARSE_ERROR, "half a character"),
        (b'{"id": 1, "id": 2}', wire.PARSE_ERROR, "twice"),
        (b"7", wire.INVALID_REQUEST, "a call is a JSON object"),
        (call(jsonrpc="1.0"), wire.INVALID_REQUEST, "jsonrpc"),
        (call(method=7), wire.INVALID_REQUEST, "method"),
        (call(params=7), wire.INVALID_REQUEST, "params"),
        (call(extra=7), wire.INVALID_REQUEST, "only"),
        (call(id=1.5), wire.INVALID_REQUEST, "id is"),
        (call(id=True), wire.INVALID_REQUEST, "id is"),
        (call(id={}), wire.INVALID_REQUEST, "id is"),
        (call(id="x" * 129), wire.INVALID_REQUEST, "128 characters"),
    ],
    ids=range(20),
)
def test_what_is_no_call_is_refused_with_the_standards_code(
    line: bytes, code: int, words: str
) -> None:
    found = parse_line(line)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert words in found.message


def test_a_refusal_names_the_call_wherever_its_id_is_usable() -> None:
    found = parse_line(call(id="mine", method=7))
    assert isinstance(found, Refusal)
    assert found.id == "mine"
    refused = {"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "x"}}
    assert framing.refusal(1, -1, "x") == refused
    with pytest.raises(ValueError, match="JSON compliant"):
        framing.encode(float("nan"))
