"""One measured request against a server that sends exactly these bytes: every oddity is a value."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.gate import STOP_TOKENS
from autotuned.core.model import Replicate
from autotuned.engine.measure import chat, event_stream, wave
from autotuned.engine.measure.event_stream import BrokenStream, EventReader
from tests.support.raw_server import (
    DONE,
    HEAD,
    Script,
    event,
    raw_server,
    sends,
    stalls,
    text,
    usage,
)

HELLO = (text("Hello"), text(" you"), usage(2))


async def measured(
    script: Script, gate_ttft_ms: float = 20_000, timeout_s: float = 20, **options: Any
) -> Replicate:
    async with raw_server(script) as port:
        request = chat.ChatRequest(f"http://127.0.0.1:{port}/v1/chat/completions", "m", "Hi", 48)
        found = await wave.send(
            [request],
            gate_ttft_ms=gate_ttft_ms,
            timeout_s=timeout_s,
            stop_tokens=STOP_TOKENS,
            **options,
        )
        return found.replicates[0]


@pytest.mark.parametrize(
    "pieces",
    [
        (*HELLO, DONE),
        (b"".join((*HELLO, DONE)),),  # all in one packet
        (*(bytes([byte]) for byte in text("Hello") + text(" you")), usage(2), DONE),
        tuple(piece.replace(b"\n", b"\r\n") for piece in (*HELLO, DONE)),
        (text("Hello")[:9], text("Hello")[9:], text(" you")[:-1], b"\n" + usage(2), DONE),
        (b": keepalive 1/9\n\n", b"event: message\nid: 7\nretry: 10\n", *HELLO, b"\n\n\n", DONE),
        (
            text(None),
            text(""),
            event({"choices": [{"delta": {"role": "assistant"}}]}),
            *HELLO,
            DONE,
        ),
        (*HELLO, event({"choices": [], "timings": {"prompt_ms": 1}}), DONE),
        (*(piece.replace(b"data: ", b"data:") for piece in HELLO), b"data:[DONE]\n\n"),
        (
            event([1, 2]),
            event("x"),
            event({"choices": "odd"}),
            event({"choices": [1]}),
            *HELLO,
            DONE,
        ),
        (*HELLO, DONE[:-1]),  # the last blank line may be missing
    ],
    ids=range(11),
)
async def test_however_a_stream_is_cut_it_is_the_same_answer(pieces: tuple[bytes, ...]) -> None:
    found = await measured(sends(*pieces))
    assert found.error is None
    assert (found.completion_tokens, found.prompt_tokens, found.remarks) == (2, 1900, ())
    assert found.leaked_token is None


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
async def test_thought_is_text_too(field: str) -> None:
    assert (await measured(sends(text("Hm", field), usage(1), DONE))).error is None


async def test_figures_come_from_the_stamps_of_the_bytes() -> None:
    """By a clock of the test: sent at 0 s, the head at 0 s, text at 1 s and 3 s, usage and end at 4 s."""
    moments = iter([0, 0, 1, 3, 4, 5])
    found = await measured(
        sends(text("one"), text("two"), usage(9, prompt=500) + DONE),
        clock=lambda: next(moments) * 10**9,
    )
    assert found == Replicate(
        ttft_ms=1000.0,
        tps=9 / 4,
        decode_tps=8 / 2,
        prefill_tps=500.0,
        total_ms=4000.0,
        prompt_tokens=500,
        completion_tokens=9,
    )


def chunk(**choice: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {}, **choice}]})


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        ((b"data:\n\n", *HELLO, DONE), 2),
        ((b"data\n\n", b"data: \n\n", *HELLO, DONE), 2),
        ((b"event: ping\ndata: ping\n\n", *HELLO, DONE), 2),
        ((b"event: message\n" + HELLO[0], *HELLO[1:], DONE), 2),
        ((b"\xef\xbb\xbf", *HELLO, DONE), 2),
        (
            (b'data: {"choices":\ndata: [{"delta": {"content":\ndata: "x"}}]}\n\n', usage(7), DONE),
            7,
        ),
        ((b"".join((*HELLO, DONE)).replace(b"\n", b"\r"),), 2),
        ((b"".join((*HELLO, DONE)).rstrip(b"\n"),), 2),
        (HELLO, 2),  # the closing usage event and the end of the body
        ((*HELLO[:2], chunk(finish_reason="stop")), 2),
        ((*HELLO[:2], chunk(finish_reason="length").rstrip(b"\n")), 2),
        ((event({"choices": [{"delta": {"content": "x"}}], "error": None}), usage(1), DONE), 1),
        ((text("x"), event({"choices": [], "error": {}}), usage(1), DONE), 1),
        ((text("x"), event({"error": {"message": "", "code": None}}), usage(1), DONE), 1),
        ((text("x"), b"error: null\n\n", usage(1), DONE), 1),
        ((event({"choices": [{"delta": {"content": "x"}, "error": ""}]}), usage(1), DONE), 1),
        ((text("x").replace(b"x", b"\xff"), usage(1), DONE), 1),  # half of a letter
    ],
    ids=range(17),
)
async def test_what_the_standard_allows_is_a_whole_answer(
    pieces: tuple[bytes, ...], tokens: int
) -> None:
    found = await measured(sends(*pieces))
    assert (found.error, found.completion_tokens) == (None, tokens)


JSON_HEAD = HEAD.replace(b"text/event-stream", b"application/json")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (sends(text("a"), event({"error": "out of slots"})), "out of slots"),
        (sends(text("a"), event({"error": {"detail": "no slot"}}), DONE), "no slot"),
        (sends(text("a"), event({"error": True, "message": "no luck"})), "no luck"),
        (sends(event({"object": "error", "message": "engine died", "code": 500})), "engine died"),
        (sends(b"event: error\ndata: plain words\n\n"), "plain words"),
        (sends(b'event: error\ndata: {"message": "in an object"}\n\n'), "in an object"),
        (sends(b'error: {"code": 500, "message": "as a field"}\n\n'), "as a field"),
        (sends(chunk(error={"message": "of a choice"})), "of a choice"),
        (sends(text("a"), chunk(finish_reason="error"), DONE), "the server ended the answer"),
        (sends(b'{"error": {"message": "model\\nfailed"}}', head=JSON_HEAD), "model failed"),
        (sends(b'{\n  "object": "error",\n  "message": "no"\n}\n', head=JSON_HEAD), "no"),
        (sends(b"<html>hello", head=HEAD), "no event in it: <html>hello"),
        (sends(), "ended without [DONE]: it is empty"),
        (
            sends(*HELLO, head=HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 9000\r\n\r\n")),
            "",  # a closing usage event in a body that was cut
        ),
    ],
    ids=range(14),
)
async def test_the_servers_own_words_of_an_error_survive(script: Script, words: str) -> None:
    found = await measured(script)
    assert found.error is not None
    assert found.error.startswith(f"broken stream: {words}")


@given(st.data())
def test_however_bytes_are_cut_the_events_are_the_same(data: st.DataObject) -> None:
    pieces = st.sampled_from(
        [
            *HELLO,
            DONE,
            b"data: x\r",
            b"\n",
            b"\r\n",
            b"\r",
            b": c\n",
            b"event: e\n",
            b"\xef\xbb\xbf",
        ]
    )
    body = b"".join(data.draw(st.lists(pieces | st.binary(max_size=5), max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6).map(sorted))
    chunks = [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]

    def events(parts: list[bytes]) -> list[tuple[str, str]]:
        reader = EventReader()
        found = [made for part in parts for made in reader.feed(part, 0)]
        return [(made.name, made.data) for made in (*found, *reader.end(0))]

    assert events(chunks) == events([body])


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((text("x"), usage(50), DONE), None),
        ((text("x"), usage(51), DONE), "implausible: 51 completion tokens, 48 were asked for"),
        (
            (text("x"), usage(9, macprovider_generated_completion_tokens=900), DONE),
            "implausible: 900",
        ),
        (
            (text("x"), usage(9, macprovider_generation_ms=0.01), DONE),
            "implausible: 800000 tok/s of d",
        ),
        ((text("x"), usage(9, prompt=10**8), DONE), "implausible: "),
        (
            (text("x"), usage(9, macprovider_generation_ms="1"), DONE),
            "usage: macprovider_generation",
        ),
    ],
    ids=range(6),
)
async def test_figures_that_cannot_be_are_an_error(
    pieces: tuple[bytes, ...], reason: str | None
) -> None:
    found = await measured(sends(*pieces))
    assert (found.error is None) if reason is None else str(found.error).startswith(reason)
    assert (found.tps is None) is (reason is not None)


async def test_the_providers_own_count_and_decode_time_are_taken() -> None:
    own = {"macprovider_generated_completion_tokens": 41, "macprovider_generation_ms": 400}
    found = await measured(sends(text("x"), usage(3, **own), DONE))
    assert (found.completion_tokens, found.decode_tps, found.remarks) == (41, 100.0, ())
    hidden = await measured(sends(text(None), usage(0, **own), DONE))
    assert (hidden.completion_tokens, hidden.remarks) == (41, ("no visible text",))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("the " * 40, True),
        ("!" * 48, True),
        ("Well, " + "no no no, " * 12, True),
        ("ab" * 9 + "a", True),
        ("yes", False),
        ("a b a b", False),
        (" ".join(f"word{n}" for n in range(40)), False),
        ("A sentence of its own that is long enough to matter here: " + "ha " * 9, False),
        ("", False),
    ],
)
async def test_one_piece_repeated_to_the_end_is_a_doubt(answer: str, expected: bool) -> None:
    assert chat.degenerate(answer) is expected
    if answer:
        pieces = [text(answer[at : at + 7]) for at in range(0, len(answer), 7)]
        found = await measured(sends(*pieces, usage(40), DONE))
        assert found.remarks == (("degenerate answer",) if expected else ())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("HTTP 413", True),
        ("HTTP 413: anything", True),
        ("HTTP 400: the request exceeds the available context size", True),
        ("HTTP 400: This model's maximum context length is 2048 tokens", True),
        ("broken stream: context_length_exceeded", True),
        ("HTTP 400: Prompt is too long", True),
        ("HTTP 400: unknown model", False),
        ("HTTP 500: out of memory", False),
        ("no token within the gate of 50 ms", False),
        (None, False),
    ],
)
def test_a_refusal_for_length_is_told_from_others(error: str | None, expected: bool) -> None:
    assert chat.refused_for_length(Replicate(error=error)) is expected


async def test_a_hidden_thought_takes_the_whole_requests_time_and_says_so() -> None:
    found = await measured(sends(text(None), usage(9), DONE))
    assert (found.error, found.remarks) == (None, ("no visible text",))
    assert found.ttft_ms == found.total_ms
    assert found.decode_tps is None


async def test_without_usage_text_chunks_are_counted_and_it_is_said() -> None:
    found = await measured(sends(text("a"), text(""), text("b"), DONE))
    assert (found.completion_tokens, found.prompt_tokens) == (2, None)
    assert found.remarks == ("tokens counted from chunks",)
    assert found.prefill_tps is None


async def test_usage_may_come_in_the_last_text_chunk_and_as_a_float() -> None:
    last = {"choices": [{"delta": {"content": "x"}}], "usage": {"completion_tokens": 3.0}}
    assert (await measured(sends(event(last), DONE))).completion_tokens == 3


@pytest.mark.parametrize(("cached", "served"), [(0, False), (95, False), (96, True), (None, False)])
async def test_cached_tokens_are_seen(cached: int | None, served: bool) -> None:
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    found = await measured(sends(text("x"), usage(1, **details), DONE))
    assert found.cached_tokens == cached
    assert chat.served_from_cache(found) is served


@pytest.mark.parametrize("cut", range(1, 10))
async def test_a_stop_token_across_chunks_is_a_leak(cut: int) -> None:
    token = STOP_TOKENS[3]
    pieces = (text("fine "), text(token[:cut]), text(token[cut:]), usage(3), DONE)
    found = await measured(sends(*pieces))
    assert (found.error, found.leaked_token) == (None, token)


@pytest.mark.parametrize(
    "count",
    [math.nan, math.inf, -math.inf, -1, 10**400, 2**40, "48", True, [], {}],
    ids=lambda count: str(count)[:9],
)
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens"])
async def test_a_figure_that_is_no_count_fails_the_replicate(count: Any, name: str) -> None:
    counts = {"completion_tokens": 2, "prompt_tokens": 9, name: count}
    found = await measured(sends(text("x"), event({"choices": [], "usage": counts}), DONE))
    assert found.error is not None
    assert found.error.startswith(f"usage: {name} is not a count of tokens")
    assert found.tps is None


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (sends(*HELLO[:2]), "broken stream: ended without [DONE]"),
        (sends(text("a"), b"data: {half\n\n"), "broken stream: an event that is no JSON: {half"),
        (sends(text("a"), b"data: " + b"[" * 10_000 + b"\n"), "broken stream: an event that is no"),
        (
            sends(text("a"), event({"error": {"message": "thread died"}})),
            "broken stream: thread died",
        ),
        (sends(text("a"), event({"error": "\ud800 died"})), "broken stream: ? died"),
        (sends(DONE), "no text and no tokens"),
        (sends(text("a"), usage(0), DONE), "usage: completion_tokens is 0 though there was text"),
        (sends(head=b"not http at all\r\n\r\n"), "broken stream: "),
        (sends(head=b""), "broken stream: "),
        (sends(head=b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), "HTTP 302"),
        (
            sends(
                b'{"error": {"message": "exceed\\n\\ud800 context"}}',
                head=HEAD.replace(b"200", b"400"),
            ),
            "HTTP 400: exceed ? context",
        ),
        (sends(b'["odd"]', head=HEAD.replace(b"200", b"500")), 'HTTP 500: ["odd"]'),
        (sends(b"<html>\xff", head=HEAD.replace(b"200", b"502")), "HTTP 502: <html>"),
        (
            sends(
                gzip.compress(b"".join((*HELLO, DONE))),
                head=HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
            ),
            "the answer is packed (gzip)",
        ),
        (
            sends(b"data: " + b"x" * (event_stream.MAX_LINE_BYTES + 1)),
            f"broken stream: a line of more than {event_stream.MAX_LINE_BYTES} bytes",
        ),
        (
            sends(head=HEAD[:-2] + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(200))),
            "broken stream: ",
        ),
        (
            sends(text("a"), head=HEAD.replace(b"\r\n\r\n", b"\r\nContent-Length: 9000\r\n\r\n")),
            "broken stream: ",
        ),
    ],
    ids=range(17),
)
async def test_what_is_no_whole_answer_is_an_error_without_figures(
    script: Script, error: str
) -> None:
    found = await measured(script)
    assert found.error is not None
    assert found.error.startswith(error)
    assert found == Replicate(error=found.error)
    found.error.encode()


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave, "MAX_BODY_BYTES", 100_000)

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _turn in itertools.count():
            writer.write(b": noise" * 1000 + b"\n")
            await writer.drain()

    assert (await measured(script)).error == "broken stream: more than 100000 bytes"


@pytest.mark.parametrize(
    "script",
    [stalls(head=b""), stalls(head=HEAD[:-2]), stalls(), stalls(b": keepalive\n\n", text(""))],
)
async def test_a_missed_gate_abandons_the_request(script: Script) -> None:
    found = await measured(script, gate_ttft_ms=50)
    assert found == Replicate(error="no token within the gate of 50 ms", gate_missed=True)


async def test_after_the_first_token_only_the_time_out_counts() -> None:
    found = await measured(stalls(text("a")), gate_ttft_ms=1000, timeout_s=1.2)
    assert found == Replicate(error="timed out after 1.2 s")
    late = await measured(stalls(), gate_ttft_ms=5000, timeout_s=0.05)
    assert (late.error, late.gate_missed) == ("timed out after 0.05 s", False)


async def test_a_hidden_answer_later_than_the_gate_misses_it() -> None:
    moments = iter([0, 0, 1, 2, 3, 4])
    found = await measured(
        sends(usage(9) + DONE), gate_ttft_ms=900, clock=lambda: next(moments) * 10**9
    )
    assert found.gate_missed


async def test_an_answer_before_the_request_gives_no_figures() -> None:
    """All of it is there before the question is: no time can be told from that."""

    async def early(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join((HEAD, text("a"), usage(1), DONE)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        request = chat.ChatRequest(
            f"http://127.0.0.1:{port}/v1/chat/completions", "m", "p" * 100, 8
        )
        whole = await wave.send([request], gate_ttft_ms=5000, timeout_s=10, stop_tokens=())
    (found,) = whole.replicates
    assert found.ttft_ms is None or found.ttft_ms > 0
    assert (found.error is None) == (found.tps is not None)


async def test_nobody_there_is_an_error() -> None:
    async with raw_server(sends()) as port:
        pass
    request = chat.ChatRequest(f"http://127.0.0.1:{port}/", "m", "Hi", 48)
    (found,) = (
        await wave.send([request], gate_ttft_ms=9000, timeout_s=9, stop_tokens=())
    ).replicates
    assert found.error is not None
    assert found.error.startswith("broken stream: ")


async def test_the_request_asks_for_what_the_contract_says() -> None:
    seen: list[bytes] = []

    async def script(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        await sends(*HELLO, DONE)(request, writer)

    await measured(script)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert b"accept-encoding: identity" in head.lower()
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 48,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60) | st.sampled_from([*HELLO, DONE, b"data: "]), max_size=6))
def test_no_bytes_make_it_raise(pieces: list[bytes]) -> None:
    answer, reader = chat.Answer(STOP_TOKENS), EventReader()
    error = None
    try:
        for stamp, piece in enumerate(pieces, start=1):
            answer.take(piece, reader.feed(piece, stamp))
        answer.take(b"", reader.end(len(pieces)))
    except BrokenStream as broken:
        error = str(broken)
    if error is None:
        found = answer.replicate(0, 1e9)
        assert (found.error is None) is (found.tps is not None and found.ttft_ms is not None)
