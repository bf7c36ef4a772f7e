"""Clients and agents of different versions: what was recorded is understood for ever, and another protocol is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autotunectl import cli
from autotunectl.client import Client, WrongProtocol
from tests.support import conversations
from tests.support.conversations import Line
from tests.support.home import Home, RpcError, Y, Z

pytestmark = pytest.mark.slow  # each starts processes of its own

RUN = conversations.exchanges(conversations.read("protocol-1"))[6][1]["result"]["run_id"]
AGENTS = ["protocol-1", "protocol-1-older", "protocol-1-newer"]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "s"


def ctl(path: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.main, ["--socket", str(path), "--no-autostart", *words])


def after_the_run(lines: list[Line]) -> list[Line]:
    """The conversation without what was asked before there was a run."""
    calls = [call for call, _ in conversations.exchanges(lines)]
    begun = next(index for index, call in enumerate(calls) if call["method"] == "subscribe")
    early = {call["id"] for call in calls[1:begun] if call["method"] != "start"}
    return [line for line in lines if line["message"].get("id") not in early]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["status"], "middle-7B"),
        (["status", "--json"], '"exit_reason": "ok"'),
        (["watch"], "finished: ok"),
        (["runs"], "middle-7B"),
        (["show"], "RECOMMENDATION"),
        (["apply", "--dry-run"], "+model: acme/middle-7B"),
        (["schedule", "show"], "off"),
        (["cancel"], "no run is active"),
    ],
)
def test_the_client_of_today_understands_each_recorded_agent(
    path: Path, agent: str, words: list[str], shown: str
) -> None:
    with conversations.recorded_agent(after_the_run(conversations.read(agent)), path):
        done = ctl(path, *words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 0, done.output
    assert shown in done.output


def test_a_method_that_an_older_agent_has_not_yet_is_told_with_the_way_out(path: Path) -> None:
    with conversations.recorded_agent(conversations.read("protocol-1-older"), path):
        done = ctl(path, "check-stale")
    assert done.exit_code == 1
    assert "hint: autotunectl daemon restart, if the agent is older than this client" in done.output


def test_the_recorded_client_is_understood_by_the_agent_of_today(home: Home) -> None:
    slower = {"replicates": [{"ttft_ms": 50, "total_ms": 250}]}
    faster = {"replicates": [{"ttft_ms": 5, "total_ms": 30}]}
    killed = {"exit_code": 137, "log": ["fatal error: out of memory"]}
    home.provider({Z: killed, Y: {**slower, "cells": {"4/1/2000": faster}}})
    home.start_daemon()
    lines = conversations.read("protocol-1")
    events = [
        line["message"]["params"] for line in lines if line["message"].get("method") == "event"
    ]
    with home.connect() as connection, connection.makefile("rb") as arriving:
        messages = (json.loads(line) for line in arriving)
        names = {"18080": str(home.port)}
        for call, was in conversations.exchanges(lines):
            text = json.dumps(call)
            for old, new in names.items():
                text = text.replace(old, new)
            connection.sendall(text.encode() + b"\n")
            now = next(message for message in messages if message.get("id") == call["id"])
            if "error" in was:
                assert now["error"]["code"] == was["error"]["code"], (call, now)
                continue
            assert "error" not in now, (call, now)
            if "run_id" in was["result"] and call["method"] == "start":
                names[was["result"]["run_id"]] = now["result"]["run_id"]
            if call["method"] == "subscribe":
                names[was["result"]["subscription"]] = now["result"]["subscription"]
                same_story(events, list(until_finished(messages)))
            holds(was["result"], now["result"], call["method"])


def until_finished(messages: Iterator[Line]) -> Iterator[Line]:
    for message in messages:
        yield message["params"]
        if message["params"]["type"] == "run.finished":
            return


def same_story(was: list[Line], now: list[Line]) -> None:
    """Each kind of event that was told then is told now, with at least its fields."""
    for event in was:
        alike = [other for other in now if other["type"] == event["type"]]
        assert alike, event["type"]
        assert any(set(event) <= set(other) for other in alike), event


def holds(was: Any, now: Any, where: str) -> None:
    """Whatever was there is there now: the same fields of the same kinds; a null then may be anything now."""
    if isinstance(was, dict):
        assert isinstance(now, dict), where
        for name, value in was.items():
            assert name in now, f"{where}.{name} is gone"
            holds(value, now[name], f"{where}.{name}")
    elif isinstance(was, list):
        assert isinstance(now, list), where
        for old, new in zip(was, now, strict=False):
            holds(old, new, f"{where}[]")
    elif isinstance(was, bool | str):
        assert now is None or type(now) is type(was), where
    elif was is not None:
        assert now is None or isinstance(now, int | float), where


def test_a_newer_client_is_told_what_an_agent_of_today_does_not_know(home: Home) -> None:
    home.start_daemon()
    with pytest.raises(RpcError) as refused:
        home.rpc("status", of_tomorrow=1)
    assert (refused.value.code, refused.value.data["field"]) == (-32602, "of_tomorrow")
    with pytest.raises(RpcError) as unknown:
        home.rpc("of.tomorrow")
    assert unknown.value.code == -32601


def speaking(protocol: Any) -> list[Line]:
    call = {"id": 1, "method": "version"}
    answer = {"id": 1, "result": {"version": "9.9", "protocol": protocol, "pid": 4242}}
    return [{"from": "client", "message": call}, {"from": "agent", "message": answer}]


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [(0, "hint: autotunectl daemon restart"), (2, "hint: upgrade this client"), (None, "restart")],
)
def test_another_protocol_is_told_with_both_versions_and_the_way_out(
    path: Path, protocol: Any, remedy: str
) -> None:
    with conversations.recorded_agent(speaking(protocol), path) as heard:
        done = ctl(path, "start", "--wait")
        assert [call["method"] for call in heard] == ["version"]  # nothing was started
    assert done.exit_code == 9
    assert f"version 9.9, pid 4242) speaks protocol {protocol}, this client" in done.output
    assert remedy in done.output


def test_the_library_tells_it_too_and_a_stranger_apart(path: Path) -> None:
    with conversations.recorded_agent(speaking(2), path), Client(str(path)) as client:
        with pytest.raises(WrongProtocol, match="protocol 2") as other:
            client.check_protocol()
        assert other.value.remedy is not None
    path.unlink()
    with (
        conversations.recorded_agent([], path),
        Client(str(path)) as client,
        pytest.raises(WrongProtocol, match="no agent"),
    ):
        client.check_protocol()


def test_an_agent_that_comes_back_with_another_protocol_ends_a_stream_of_events(path: Path) -> None:
    with conversations.recorded_agent(conversations.read("protocol-1"), path):
        events = Client(str(path)).events(run_id=RUN, since=0)
        assert next(events)["type"] == "run.started"
    path.unlink()
    with conversations.recorded_agent(speaking(2), path), pytest.raises(WrongProtocol):
        list(events)
