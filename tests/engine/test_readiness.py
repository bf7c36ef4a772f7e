"""When a server that listens counts as serving; a look is bounded whatever it sends."""

from __future__ import annotations

import asyncio
import json

import pytest

from autotuned.engine.measure import chat, readiness
from autotuned.providers import made
from autotuned.providers.server import Provider
from tests.support.raw_server import Script, raw_server, sends, stalls

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
LIST = json.dumps({"data": [{"id": "m"}]}).encode()
DEEP = b'{"data":' * 100_000


async def look(script: Script, provider: Provider | None = None) -> str | None:
    provider = provider or made("macprovider")
    async with raw_server(script) as port, chat.new_client() as client:
        return await readiness.missing(client, provider, port, "m")


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (sends(LIST, head=OK), None),
        (sends(b'{"data": []}', head=OK), "does not list"),
        (sends(b'{"data": [{"id": "other"}]}', head=OK), "does not list"),
        (sends(b"<html>", head=OK), "does not list"),
        (sends(b"\xff\xfe", head=OK), "does not list"),
        (sends(DEEP, head=OK), "does not list"),
        (sends(head=b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n"), "HTTP 503"),
        (sends(head=b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"), "HTTP 301"),
        (sends(head=b"nonsense\r\n\r\n"), "RemoteProtocolError"),
    ],
    ids=range(9),
)
async def test_ready_means_200_and_the_wanted_model_in_the_list(
    script: Script, what: str | None
) -> None:
    found = await look(script)
    assert (found is None) if what is None else (found is not None and what in found)


async def test_a_path_that_says_503_makes_a_listed_model_wait() -> None:
    async def script(request: bytes, writer: asyncio.StreamWriter) -> None:
        busy = b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n"
        await sends(head=busy if b"/health" in request else OK + LIST)(request, writer)

    assert await look(script, made("llama-server")) == "GET /health: HTTP 503"


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LOOK_TIMEOUT_S", 0.1)
    found = await look(stalls(b" ", head=OK))
    assert found == "GET /v1/models: no whole answer within 0.1 s"
    monkeypatch.setattr(readiness, "BODY_MAX_BYTES", 1000)
    assert "does not list" in str(await look(sends(b" " * 2000 + LIST, head=OK)))
