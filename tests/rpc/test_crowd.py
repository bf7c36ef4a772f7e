"""What many clients, or one that behaves badly, can take from the others: bounded memory, bounded time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from autotuned.rpc import channel, connection
from autotuned.rpc.connection import Connection
from autotuned.rpc.framing import Refusal, parse_line
from autotuned.rpc.method import Method, Params
from autotuned.shared import wire
from tests.rpc.served import Client, served, until


class LargeParams(Params):
    """Something that makes a line large."""

    texts: list[str]


ECHO = {"jsonrpc": "2.0", "id": 1, "method": "echo"}
PART = 800_000


async def ended(client: Client) -> bool:
    """Whether the agent has hung up, whatever it said before."""
    try:
        while await client.line() is not None:
            pass
    except ConnectionError:
        return True
    return True


async def test_who_sends_very_many_calls_ahead_does_not_keep_others_from_being_served() -> None:
    async with served() as door:
        greedy, other = await door.client(), await door.client()
        many = 1000
        greedy.writer.write((json.dumps({**ECHO, "params": {"value": 1}}) + "\n").encode() * many)
        await other.call("echo", value=2)
        await until(lambda: len(door.methods.echoed) > many, "all of them are answered")
        assert door.methods.echoed.index(2) < many


async def test_a_line_that_does_not_end_in_time_is_answered_and_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "LINE_S", 0.05)
    async with served() as door:
        client = await door.client()
        await client.call("echo")
        client.writer.write(b'{"jsonrpc"')
        assert "arrives whole" in (await client.line())["error"]["message"]
        assert await ended(client)
        idle = await door.client()  # one that sends nothing costs nothing, and stays
        await asyncio.sleep(0.1)
        assert (await idle.call("echo"))["result"] == {"value": 0}


async def test_unfinished_lines_of_all_together_are_bounded_and_small_clients_stay() -> None:
    async with served() as door:
        small = await door.client()
        await small.call("echo")
        clients = [await door.client() for _ in range(40)]
        for client in clients:
            client.writer.write(b"x" * PART)
        crowd = door.server._crowd
        most = channel.CROWD_BYTES // PART + 1

        def cut() -> bool:
            return len(clients) - len(crowd.channels) + 1 >= len(clients) - most

        await until(cut, "most of them are cut off")
        assert sum(each.weight() for each in crowd.channels) <= channel.CROWD_BYTES
        assert (await small.call("echo"))["result"] == {"value": 0}


async def test_large_lines_are_read_by_one_client_at_a_time_and_hold_up_no_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LARGE_TURN_S", 30.0)
    in_flight, most = 0, 0
    gate = asyncio.Event()

    async def large(_: Connection, __: LargeParams) -> dict[str, Any]:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await gate.wait()
        in_flight -= 1
        return {}

    async with served(methods=[Method("large", "", large)]) as door:
        small = await door.client()
        clients = [await door.client() for _ in range(4)]
        params = {"texts": ["x" * channel.LARGE_BYTES]}
        calls = [asyncio.create_task(each.call("large", **params)) for each in clients]
        await until(lambda: in_flight == 1, "one is being answered")
        assert (await small.call("echo", value=2))["result"] == {"value": 2}
        gate.set()
        assert [(await call)["result"] for call in calls] == [{}] * 4
        assert most == 1


async def test_calls_in_flight_count_with_the_lines_they_came_in() -> None:
    async with served() as door:
        clients = [await door.client() for _ in range(20)]
        line = b'{"jsonrpc":"2.0","id":1,"method":"wait"}' + b" " * PART
        for client in clients:
            client.writer.write(line + b"\n")
        crowd = door.server._crowd
        await until(lambda: len(crowd.channels) < len(clients), "the heaviest are cut off")
        assert sum(each.weight() for each in crowd.channels) <= channel.CROWD_BYTES
        door.methods.gate.set()


async def test_who_has_32_calls_open_and_hangs_up_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "PEER_POLL_S", 0.02)
    async with served() as door:
        client = await door.client()
        for _ in range(connection.MAX_IN_FLIGHT + 5):
            await client.send({**ECHO, "method": "wait"})
        for _ in range(connection.MAX_IN_FLIGHT):
            await door.methods.arrived.acquire()
        await client.close()
        await until(lambda: not door.server._clients, "its place is free")


async def test_who_leaves_answers_unread_keeps_neither_place_nor_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "STALLED_S", 0.05)
    async with served() as door:
        client = await door.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        message = {**ECHO, "method": "missing"}  # a kilobyte of regret
        for _ in range(800):
            await client.send(message)
        client.writer.write_eof()
        await until(lambda: not door.server._clients, "its place is free")


@pytest.mark.parametrize(
    "line",
    [
        b"[" + b"1," * 500_000 + b"1]",
        b'{"a":' + b"[" + b"[]," * 300_000 + b"[]]}",
        b"[" + b'"",' * 300_000 + b'""]',
    ],
    ids=["numbers", "lists", "strings"],
)
def test_a_line_of_very_many_values_is_refused_without_making_them(line: bytes) -> None:
    found = parse_line(line)
    assert isinstance(found, Refusal)
    assert found.code == wire.INVALID_REQUEST
    assert str(wire.MAX_VALUES) in found.message


def test_as_many_values_as_are_allowed_are_read_and_commas_in_strings_are_none() -> None:
    inner = b",".join([b'",{["'] * (wire.MAX_VALUES - 10))
    found = parse_line(b'{"jsonrpc":"2.0","method":"m","id":1,"params":{"x":[' + inner + b"]}}")
    assert not isinstance(found, Refusal)
    assert not isinstance(found, list)
    assert found.params == {"x": [",{["] * (wire.MAX_VALUES - 10)}
