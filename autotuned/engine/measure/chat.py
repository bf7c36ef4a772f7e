"""One measured streaming request: bytes are stamped as they arrive, before anything is parsed.

Whatever the server does comes back as a value: a Replicate with all its figures, or with an error and
no figure that counts. Knows no policy: no retry, no verdict, no prompt.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from autotuned.core.gate import bounded
from autotuned.core.model import Replicate

MAX_LINE_BYTES = 1024 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
NOTHING_SAID = "no text and no tokens"
MAX_TOKENS = 2**31
CACHED_SHARE = 0.05
TEXT_FIELDS = ("content", "reasoning_content", "reasoning")

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to send, and where."""

    url: str
    model: str
    prompt: str
    max_tokens: int

    def body(self) -> dict[str, Any]:
        """The JSON of the request."""
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def new_client() -> httpx.AsyncClient:
    """A client for one candidate: loopback only, no proxy, no redirects, no deadlines but the caller's."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=ssl.SSLContext(
            ssl.PROTOCOL_TLS_CLIENT
        ),  # plain HTTP only: reading the system's certificates takes 50 ms
        follow_redirects=False,
        timeout=None,  # noqa: S113 - each request runs under deadlines of its own
        headers={"Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=0),
    )


def served_from_cache(replicate: Replicate) -> bool:
    """True when more than 5 % of the prompt came from the server's prompt cache."""
    return (replicate.cached_tokens or 0) > CACHED_SHARE * (replicate.prompt_tokens or math.inf)


async def measure(
    client: httpx.AsyncClient,
    request: ChatRequest,
    *,
    gate_ttft_ms: float,
    timeout_s: float,
    stop_tokens: Sequence[str],
    clock: Clock = time.perf_counter_ns,
) -> Replicate:
    """Send one request and measure its stream. Raises nothing but CancelledError.

    `gate_ttft_ms`: abandoned when no token has arrived by then. `timeout_s`: for the whole request.
    `clock` gives nanoseconds.
    """
    answer = _Answer(stop_tokens)
    content = json.dumps(request.body()).encode()
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    sent = _Sent(clock)
    loop = asyncio.get_running_loop()
    now = loop.time()
    gate_at, end_at = now + gate_ttft_ms / 1000, now + timeout_s
    try:
        async with asyncio.timeout_at(min(gate_at, end_at)) as deadline:
            async with client.stream(
                "POST",
                request.url,
                content=content,
                headers=headers,
                extensions={"trace": sent},
            ) as response:
                if response.status_code != 200:
                    return _failed(await _refusal(response))
                coding = response.headers.get("content-encoding", "identity")
                if coding != "identity":
                    return _failed(f"the answer is packed ({coding}) though identity was asked for")
                async for stamp, line in _lines(response, clock):
                    answer.take(line, stamp)
                    if answer.first is not None:
                        deadline.reschedule(end_at)
                    if answer.done:
                        break
    except TimeoutError:
        if answer.first is None and gate_at <= end_at:
            return Replicate(
                error=f"no token within the gate of {gate_ttft_ms:.0f} ms", gate_missed=True
            )
        return _failed(f"timed out after {timeout_s:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, _BrokenStream) as error:
        return _failed(f"broken stream: {str(error) or type(error).__name__}")
    return answer.replicate(sent.stamp, gate_ttft_ms)


class _Sent:
    """Stamps when a request is sent: preparing and connecting are ours, so it is when the last byte is handed over."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stamp = clock()

    async def __call__(self, moment: str, _: Any) -> None:
        """httpcore's `trace` extension."""
        if moment == "http11.send_request_body.complete":
            self.stamp = self._clock()


def _failed(reason: str) -> Replicate:
    """A replicate without figures. Servers put anything into their words: the reason is one storable line."""
    return Replicate(error=bounded(reason))


class _BrokenStream(Exception):
    """What arrived is not a whole event stream."""


async def _lines(response: httpx.Response, clock: Clock) -> AsyncIterator[tuple[int, bytes]]:
    """Lines with the moment at which their last byte arrived; split at newline bytes only."""
    waiting, total = b"", 0
    async for chunk in response.aiter_raw():
        stamp = clock()
        total += len(chunk)
        if total > MAX_BODY_BYTES:
            message = f"more than {MAX_BODY_BYTES} bytes"
            raise _BrokenStream(message)
        *lines, waiting = (waiting + chunk).split(b"\n")
        if len(waiting) > MAX_LINE_BYTES:
            message = f"a line of more than {MAX_LINE_BYTES} bytes"
            raise _BrokenStream(message)
        for line in lines:
            yield stamp, line.rstrip(b"\r")


async def _refusal(response: httpx.Response) -> str:
    text = b""
    async for chunk in response.aiter_raw():
        text += chunk
        if len(text) > 4096:
            break
    said = " ".join(_message(text).split())[:200]
    return f"HTTP {response.status_code}" + (f": {said}" if said else "")


def _message(body: bytes) -> str:
    """The `error.message` of a JSON refusal in any of its usual shapes, else the text itself."""
    text = body.decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


@dataclass(slots=True)
class _Answer:
    """What the stream has said so far; stamps are nanoseconds."""

    stop_tokens: Sequence[str]
    first: int | None = None
    last: int = 0
    ended: int = 0
    done: bool = False
    chunks: int = 0
    tail: str = ""
    """The end of what was said, as much as may begin a stop token."""
    leaked: set[str] = field(default_factory=set)
    usage: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def take(self, line: bytes, stamp: int) -> None:
        """Read one line of the event stream; comments, other fields and empty lines say nothing."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        self.ended = stamp
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            message = f"an event that is no JSON: {data[:60].decode('utf-8', errors='replace')}"
            raise _BrokenStream(message) from error
        if isinstance(event, dict):
            self._event(event, stamp)

    def _event(self, event: dict[str, Any], stamp: int) -> None:
        if "error" in event:
            raise _BrokenStream(_message(json.dumps(event).encode()))
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if not isinstance(delta, dict):
                continue
            text = "".join(delta[name] for name in TEXT_FIELDS if isinstance(delta.get(name), str))
            if text:
                self.first = stamp if self.first is None else self.first
                self.last = stamp
                self._hear(text)

    def _hear(self, text: str) -> None:
        """Count a chunk and look for stop tokens, also across chunks; nothing of it is kept for long."""
        self.chunks += 1
        said = self.tail + text
        self.leaked.update(token for token in self.stop_tokens if token and token in said)
        self.tail = said[-max(map(len, self.stop_tokens), default=1) :]

    def replicate(self, sent: int, gate_ttft_ms: float) -> Replicate:
        """The figures of a stream that has ended."""
        if not self.done:
            return Replicate(error="broken stream: ended without [DONE]")
        try:
            prompt, completion, cached = self._tokens()
        except ValueError as error:
            return _failed(str(error))
        remarks = ["tokens counted from chunks"] if completion is None else []
        tokens = self.chunks if completion is None else completion
        if tokens <= 0:
            return Replicate(error=NOTHING_SAID)
        if self.first is None:
            remarks.append("no visible text")
        total_ms = (self.ended - sent) / 1e6
        ttft_ms = total_ms if self.first is None else (self.first - sent) / 1e6
        if not (total_ms > 0 and ttft_ms > 0):
            return Replicate(error="a duration that is not positive")
        if self.first is None and ttft_ms > gate_ttft_ms:
            return Replicate(
                error=f"no token within the gate of {gate_ttft_ms:.0f} ms", gate_missed=True
            )
        decode_ms = 0.0 if self.first is None else (self.last - self.first) / 1e6
        return Replicate(
            ttft_ms=ttft_ms,
            tps=tokens / total_ms * 1000,
            decode_tps=(tokens - 1) / decode_ms * 1000 if tokens > 1 and decode_ms > 0 else None,
            prefill_tps=prompt / ttft_ms * 1000 if prompt else None,
            total_ms=total_ms,
            prompt_tokens=prompt,
            completion_tokens=tokens,
            cached_tokens=cached,
            leaked_token=next((token for token in self.stop_tokens if token in self.leaked), None),
            remarks=tuple(remarks),
        )

    def _tokens(self) -> tuple[int | None, int | None, int | None]:
        """Prompt, completion and cached tokens. Raises ValueError for a figure that cannot be."""
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        generated = self.usage.get("macprovider_generated_completion_tokens")
        completion = _count("completion_tokens", self.usage.get("completion_tokens"))
        hidden = _count("macprovider_generated_completion_tokens", generated)
        if (
            not self.chunks and hidden
        ):  # all of a hidden reasoning counts where none of it was shown
            completion = max(completion or 0, hidden)
        if completion == 0 and self.chunks:
            message = "usage: completion_tokens is 0 though there was text"
            raise ValueError(message)
        return (
            _count("prompt_tokens", self.usage.get("prompt_tokens")),
            completion,
            _count("cached_tokens", cached),
        )


def _count(name: str, value: Any) -> int | None:
    """A count of tokens: None where absent. Raises ValueError for what is no finite count."""
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MAX_TOKENS  # false for NaN, and no integer is too large to compare
    ):
        message = f"usage: {name} is not a count of tokens: {value!r:.40}"
        raise ValueError(message)
    return int(value)
