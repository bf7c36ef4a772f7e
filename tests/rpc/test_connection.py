"""What a client can rely on, and what it cannot do to others: dispatch and connections over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.shared import wire
from tests.rpc.served import served, until


def asked(method: str, identity: object = 1, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params}


@pytest.mark.parametrize("identity", [0, -7, 2**53 - 1, "", "a \u00e9", "x" * 128, None])
async def test_the_id_comes_back_as_it_went(identity: object) -> None:
    async with served() as door:
        client = await door.client()
        await client.send(asked("echo", identity, value=3))
        assert await client.line() == {"jsonrpc": "2.0", "id": identity, "result": {"value": 3}}


async def test_a_notification_is_never_answered_not_even_with_an_error() -> None:
    async with served() as door:
        client = await door.client()
        for method in ("echo", "broken", "no such", "busy"):
            await client.send({"jsonrpc": "2.0", "method": method})
        assert (await client.call("echo"))["result"] == {"value": 0}


async def test_a_batch_is_answered_in_one_line_without_its_notifications() -> None:
    async with served() as door:
        client = await door.client()
        notification = {"jsonrpc": "2.0", "method": "echo"}
        await client.send([asked("echo", "a"), notification, 7, asked("nope", "b")])
        answers = await client.line()
        assert [answer["id"] for answer in answers] == ["a", None, "b"]
        assert [answer.get("error", {}).get("code") for answer in answers] == [
            None,
            wire.INVALID_REQUEST,
            wire.METHOD_NOT_FOUND,
        ]
        await client.send([notification, notification])
        assert (await client.call("echo"))["id"] == 1


@pytest.mark.parametrize(
    ("method", "code", "data"),
    [
        ("busy", wire.BUSY, {"run_id": "r"}),
        ("missing", wire.NOT_FOUND, {}),
        ("store", wire.INTERNAL_ERROR, {"kind": "store_error", "path": "/path"}),
        ("no such", wire.METHOD_NOT_FOUND, None),
    ],
)
async def test_every_failure_has_its_code(method: str, code: int, data: object) -> None:
    async with served() as door:
        error = (await (await door.client()).call(method))["error"]
        assert (error["code"], error.get("data")) == (code, data)
        assert len(error["message"]) <= 1000


@pytest.mark.parametrize("method", ["broken", "odd"])
async def test_a_bug_is_told_by_the_number_of_its_incident_alone(method: str) -> None:
    async with served() as door:
        client = await door.client()
        error = (await client.call(method))["error"]
        assert error["code"] == wire.INTERNAL_ERROR
        assert error["data"]["incident"] in error["message"]
        assert "secret" not in str(error)
        assert (await client.call("echo"))["result"] == {"value": 0}


@pytest.mark.parametrize(
    ("params", "field"),
    [({"value": "x"}, "value"), ({"other": 1}, "other"), ({"value": None}, "value")],
)
async def test_a_bad_parameter_is_named(params: dict[str, object], field: str) -> None:
    async with served() as door:
        error = (await (await door.client()).call("echo", **params))["error"]
        assert error["code"] == wire.INVALID_PARAMS
        assert error["data"]["exit_reason"] == "config_error"
        assert (error["data"]["field"], error["data"]["value"]) == (field, params[field])


async def test_parameters_are_given_by_name() -> None:
    async with served() as door:
        client = await door.client()
        await client.send({**asked("echo"), "params": [1]})
        assert (await client.line())["error"]["code"] == wire.INVALID_PARAMS


async def test_a_quick_call_overtakes_a_slow_one_and_both_are_matched_by_id() -> None:
    async with served() as door:
        client = await door.client()
        await client.send(asked("wait", "slow"))
        await client.send(asked("echo", "quick"))
        assert (await client.line())["id"] == "quick"
        door.methods.gate.set()
        assert (await client.line())["id"] == "slow"


async def test_who_only_stops_writing_still_gets_every_answer() -> None:
    async with served() as door:
        client = await door.client()
        await client.send(asked("wait"))
        client.writer.write_eof()
        await door.methods.arrived.acquire()
        door.methods.gate.set()
        assert (await client.line())["result"] == {"waited": True}
        assert await client.line() is None


async def test_odd_bytes_leave_the_connection_usable_and_blank_lines_are_nothing() -> None:
    async with served() as door:
        client = await door.client()
        await client.send(b"\xff\x00garbage")
        assert (await client.line())["error"]["code"] == wire.PARSE_ERROR
        for line in (b"", b"  ", b"\r"):
            await client.send(line)
        await client.send(b'{"jsonrpc":"2.0","id":5,"method":"echo"}\r')
        assert (await client.line())["id"] == 5


async def test_a_line_beyond_the_limit_is_answered_and_ends_the_connection() -> None:
    async with served() as door:
        client = await door.client()
        client.writer.write(b"x" * (wire.MAX_LINE_BYTES + 4096))
        assert (await client.line())["error"]["code"] == wire.INVALID_REQUEST
        with pytest.raises((ConnectionError, AssertionError)):
            assert await client.line() is not None
        assert (await (await door.client()).call("echo"))["result"] == {"value": 0}


async def test_who_does_not_read_is_cut_off_at_4_mib_and_its_subscription_ends() -> None:
    async with served() as door:
        client = await door.client()
        await client.send(asked("flood"))
        await until(lambda: door.methods.ended == ["flood"], "the flood has ended")
        assert (await (await door.client()).call("echo"))["result"] == {"value": 0}


async def test_a_subscription_ends_with_its_client() -> None:
    async with served() as door:
        client = await door.client()
        assert (await client.call("follow"))["result"] == {}
        assert door.methods.ended == []
        await client.close()
        await until(lambda: door.methods.ended == ["follow"], "the subscription has ended")


async def test_calls_in_flight_are_answered_when_the_agent_stops() -> None:
    async with served() as door:
        client = await door.client()
        await client.send(asked("wait"))
        await door.methods.arrived.acquire()
        closing = asyncio.create_task(door.server.close())
        await until(lambda: not door.path.exists())
        door.methods.gate.set()
        assert (await client.line())["result"] == {"waited": True}
        await closing


async def test_a_batch_is_not_in_memory_all_at_once_and_one_slow_call_holds_up_no_other() -> None:
    in_flight, most = 0, 0

    async def quick(_: Connection, __: Params) -> dict[str, Any]:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return {}

    async def opens(_: Connection, __: Params) -> dict[str, Any]:
        door.methods.gate.set()
        return {}

    async with served(methods=[Method("quick", "", quick), Method("opens", "", opens)]) as door:
        client = await door.client()
        await client.send([asked("quick", number) for number in range(wire.MAX_BATCH)])
        assert len(await client.line()) == wire.MAX_BATCH
        assert most < wire.MAX_BATCH // 2
        await client.send([asked("wait", "a"), asked("opens", "b")])
        assert [answer["id"] for answer in await client.line()] == ["a", "b"]


async def test_words_of_more_than_16_kib_are_refused_with_their_beginning() -> None:
    async with served() as door:
        client = await door.client()
        error = (await client.call("echo", value="x" * 20_000))["error"]
        assert error["code"] == wire.INVALID_PARAMS
        assert error["data"]["field"] == "value"
        assert error["data"]["rule"] == "is longer than 16,384 characters"
        assert len(error["data"]["value"]) == 201


async def test_the_answers_of_a_batch_are_bounded_together() -> None:
    async def long(_: Connection, __: Params) -> dict[str, Any]:
        return {"text": "x" * (wire.MAX_UNSENT_BYTES // 3)}

    async with served(methods=[Method("long", "", long)]) as door:
        client = await door.client()
        await client.send([asked("long", number) for number in range(5)])
        answers = await client.line()
        assert [answer["id"] for answer in answers] == list(range(5))
        assert ["result" in answer for answer in answers] == [True, True, False, False, False]


async def test_what_a_call_has_begun_is_carried_through_though_its_client_hangs_up() -> None:
    begun, gate, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def act(_: Connection, __: Params) -> dict[str, Any]:
        begun.set()
        await gate.wait()
        done.set()
        return {}

    async with served(methods=[Method("act", "", act, acts=True)]) as door:
        client = await door.client()
        await client.send(asked("act"))
        await begun.wait()
        await client.close()
        await until(lambda: not door.server._clients, "its place is free")
        gate.set()
        async with asyncio.timeout(20):
            await done.wait()
