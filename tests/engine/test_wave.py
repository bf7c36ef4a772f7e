"""Several requests at once against a server in the same process that knows when it did what."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from autotuned.core.model import CUT_WITH_WAVE
from autotuned.engine.measure import wave
from autotuned.engine.measure.chat import ChatRequest
from autotuned.engine.measure.wave import Wave
from tests.support.raw_server import DONE, HEAD, event, raw_server, sends, text, usage

Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


async def waved(
    count: int,
    answer: Answer,
    gate_ttft_ms: float = 20_000,
    late_allowed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Wave:
    """A wave of `count`; `answer` is given the number of the stream, from 0, in the order of arrival."""
    arrived = iter(range(count))

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(next(arrived), writer)

    async with raw_server(script) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        requests = [ChatRequest(url, "m", f"prompt {turn}", 48) for turn in range(count)]
        return await wave.send(
            requests,
            gate_ttft_ms=gate_ttft_ms,
            timeout_s=20,
            stop_tokens=("<|im_end|>",),
            late_allowed=late_allowed,
            clock=clock,
        )


async def whole(_: int, writer: asyncio.StreamWriter) -> None:
    await sends(text("a"), text("b"), usage(2), DONE)(b"", writer)


async def test_every_stream_has_its_figures_and_its_place() -> None:
    found = await waved(16, whole)
    assert all(one.error is None for one in found.replicates)
    assert [one.stream for one in found.replicates] == list(range(1, 17))
    assert min(one.sent_ms or 0.0 for one in found.replicates) == 0.0
    assert len(found.itl_ms) == 16


@pytest.mark.parametrize("count", [1, 2])
async def test_a_process_that_is_held_up_once_a_request_is_sent_does_not_shorten_its_answer(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_up_ns = 0
    write = wave._Stream.write

    def written(stream: Any, data: bytes) -> None:
        nonlocal held_up_ns
        write(stream, data)
        held_up_ns += 10**9

    monkeypatch.setattr(wave._Stream, "write", written)
    found = await waved(count, whole, clock=lambda: time.perf_counter_ns() + held_up_ns)
    assert all((one.ttft_ms or 0.0) >= 1000 for one in found.replicates)


async def test_no_request_is_whole_before_all_of_the_others_are_nearly() -> None:
    """Each answer waits until every request has arrived: in a client with a queue none ever would."""
    everybody = asyncio.Barrier(32)

    async def together(number: int, writer: asyncio.StreamWriter) -> None:
        await everybody.wait()
        await whole(number, writer)

    found = await waved(32, together)
    assert all(one.error is None for one in found.replicates)


async def test_one_stream_that_fails_ends_the_wave_at_once() -> None:
    first_text = asyncio.Event()

    async def one_breaks(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            writer.write(HEAD + text("a"))
            await writer.drain()
            first_text.set()
            await asyncio.wait_for(writer.wait_closed(), 30)
        else:
            await first_text.wait()
            await asyncio.sleep(0.05)
            await sends(event({"error": {"message": "out of slots"}}))(b"", writer)

    found = await waved(2, one_breaks)
    errors = sorted((one.error or "", one.ttft_ms is not None) for one in found.replicates)
    assert errors == [("broken stream: out of slots", False), (CUT_WITH_WAVE, True)]


async def test_a_leak_in_one_stream_ends_the_wave() -> None:
    async def one_leaks(number: int, writer: asyncio.StreamWriter) -> None:
        if number:
            await sends(text("<|im_end|>"), usage(1), DONE)(b"", writer)
        else:
            await asyncio.wait_for(writer.wait_closed(), 30)

    found = await waved(2, one_leaks)
    assert {one.leaked_token for one in found.replicates} == {None, "<|im_end|>"}
    assert {one.error for one in found.replicates} == {None, CUT_WITH_WAVE}


async def test_streams_beyond_those_that_may_be_late_miss_the_gate_together() -> None:
    async def one_is_silent(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 0:
            await asyncio.sleep(0.6)
        await whole(number, writer)

    missed = await waved(2, one_is_silent, gate_ttft_ms=300)
    assert sorted(one.gate_missed for one in missed.replicates) == [False, True]
    late = await waved(2, one_is_silent, gate_ttft_ms=300, late_allowed=1)
    assert all(one.error is None for one in late.replicates)
    assert max(one.ttft_ms or 0.0 for one in late.replicates) > 300


async def test_a_server_that_reads_one_request_after_the_other_is_waited_for() -> None:
    """With more of a prompt than the kernel holds for a connection that nobody reads."""
    turn, ended = asyncio.Lock(), asyncio.Barrier(3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with turn:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            await whole(0, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await ended.wait()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        request = ChatRequest(f"http://127.0.0.1:{port}/v1", "m", "p" * 12_000_000, 48)
        found = await wave.send(
            [request, request], gate_ttft_ms=20_000, timeout_s=20, stop_tokens=()
        )
        await ended.wait()
    assert [one.error for one in found.replicates] == [None, None]
