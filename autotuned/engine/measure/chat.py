"""One streaming request and what its answer comes to.

Whatever the server does comes back as a value: a Replicate with all its figures, or with an error and
no figure that counts. Knows no policy: no retry, no verdict, no prompt; and no socket.
"""

from __future__ import annotations

import contextlib
import math
import re
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import httpx

from autotuned.core.gate import bounded
from autotuned.core.model import Replicate
from autotuned.engine.measure.event_stream import (
    BrokenStream,
    Event,
    decoded,
    error_words,
    refusal_words,
)

NOTHING_SAID = "no text and no tokens"
MAX_TOKENS = 2**31
CACHED_SHARE = 0.05
TEXT_FIELDS = ("content", "reasoning_content", "reasoning")
FAILED_FINISH = ("error", "abort")
"""Finish reasons by which servers say that an answer was not finished."""
HEAD_BYTES = 16 * 1024
"""Of a body that holds no event so much is kept, for the words in it."""

TOKENS_BEYOND = 2
"""Servers may count the tokens that begin and end an answer beyond those that were asked for."""
FASTEST_TPS = 100_000.0
SHORTEST_PREFILL_MS = 50.0
"""A prompt read in less is judged as if it had taken this long: small models are done at once."""
SHORTEST_DECODE_MS = 1.0
"""Text that arrives within less came in one burst: its stamps tell nothing of the decoding."""
REPEATS = 8
"""A piece that stands so often at the end, and fills half of an answer, makes it degenerate."""
ANSWER_CHARACTERS = 4096

_TOO_LONG = re.compile(
    r"""^HTTP\ 413\b
    | context.{0,40}(?:length|size|window|exceed|limit|overflow)
    | (?:prompt|input|request|sequence|messages?)\b.{0,40}(?:too\ (?:long|large|big)|longer|exceed)
    | too\ many\ (?:\w+\ )?tokens | exceed.{0,40}(?:context|tokens|length)
    | max(?:imum)?.{0,20}(?:context|tokens|length)""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    url: str
    model: str
    prompt: str
    max_tokens: int
    seed: int | None = None

    def body(self) -> dict[str, object]:
        seed = {} if self.seed is None else {"seed": self.seed}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **seed,
        }


def new_client() -> httpx.AsyncClient:
    """A client that looks whether a candidate serves: loopback only, no proxy, no redirects, no deadlines but the caller's."""
    return httpx.AsyncClient(
        trust_env=False,
        # Plain HTTP only: reading the system's certificates takes 50 ms.
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        follow_redirects=False,
        timeout=None,  # noqa: S113 - each request runs under deadlines of its own
        headers={"Accept-Encoding": "identity"},
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=0),
    )


def served_from_cache(replicate: Replicate) -> bool:
    """True when more than 5 % of the prompt came from the server's prompt cache."""
    return (replicate.cached_tokens or 0) > CACHED_SHARE * (replicate.prompt_tokens or math.inf)


def refused_for_length(replicate: Replicate) -> bool:
    """True when the server refused the prompt because it is too long."""
    return replicate.error is not None and _TOO_LONG.search(replicate.error) is not None


def failed(reason: str) -> Replicate:
    """A replicate without figures. Servers put anything into their words: the reason is one storable line."""
    return Replicate(error=bounded(reason))


def plausible(replicate: Replicate, max_tokens: int) -> Replicate:
    """The replicate, or an error where its figures cannot be. The figures of a warm-up count for nothing."""
    if replicate.error is not None or max_tokens <= 1:
        return replicate
    tokens = replicate.completion_tokens or 0
    if tokens > max_tokens + TOKENS_BEYOND:
        return failed(f"implausible: {tokens} completion tokens, {max_tokens} were asked for")
    uncached = (replicate.prompt_tokens or 0) - (replicate.cached_tokens or 0)
    prefill_ms = max(replicate.ttft_ms or 0.0, SHORTEST_PREFILL_MS)
    rates = {
        "end to end": replicate.tps or 0.0,
        "of decoding": replicate.decode_tps or 0.0,
        "of prefill": uncached / prefill_ms * 1000,
    }
    name, fastest = max(rates.items(), key=lambda rate: rate[1])
    if fastest > FASTEST_TPS:
        return failed(f"implausible: {fastest:.0f} tok/s {name}")
    return replicate


def degenerate(text: str) -> bool:
    """True when the answer ends in one piece that is repeated and fills at least half of it."""
    text = text.strip()
    for period in range(1, len(text) // REPEATS + 1):
        length = period
        while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
            length += 1
        if length >= max(REPEATS * period, len(text) / 2):
            return True
    return False


@dataclass(slots=True)
class Answer:
    """What the stream has brought so far; stamps are nanoseconds."""

    stop_tokens: Sequence[str]
    first: int | None = None
    last: int = 0
    ended: int = 0
    done: bool = False
    chunks: int = 0
    leaked: set[str] = field(default_factory=set)
    text: str = ""
    """The end of the answer, at most ANSWER_CHARACTERS."""
    usage: dict[str, object] = field(default_factory=dict)
    finished: bool = False
    """A finish reason or the closing usage event has come: with the end of the body the answer is whole."""
    head: bytes = b""
    """The beginning of the body for as long as no event has come."""
    gaps_ms: list[float] = field(default_factory=list)
    """Between two chunks of text."""

    def take(self, chunk: bytes, events: Iterable[Event]) -> None:
        """Read the events of one chunk. Raises BrokenStream for what no answer may hold."""
        if not self.ended and len(self.head) < HEAD_BYTES:
            self.head += chunk[:HEAD_BYTES]
        for event in events:
            self._event(event)
            if self.done:
                return

    def _event(self, event: Event) -> None:
        if event.name not in ("", "message", "error"):
            return
        self.ended = event.stamp
        if event.data == "[DONE]":
            self.done = True
            return
        try:
            content = decoded(event.data)
        except ValueError:
            if event.name == "error":
                raise BrokenStream(event.data) from None
            message = f"an event that is no JSON: {event.data[:60]}"
            raise BrokenStream(message) from None
        words = error_words(content)
        if words is None and event.name == "error" and content:
            words = refusal_words(event.data.encode())
        if words is not None:
            raise BrokenStream(words)
        if isinstance(content, dict):
            self._content(content, event.stamp)

    def _content(self, content: dict[str, object], stamp: int) -> None:
        choices = content.get("choices")
        usage = content.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
            self.finished = self.finished or not choices
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            reason = choice.get("finish_reason")
            if reason in FAILED_FINISH:
                message = f"the server ended the answer with finish_reason {reason}"
                raise BrokenStream(message)
            self.finished = self.finished or bool(reason)
            delta = choice.get("delta")
            if not isinstance(delta, dict):
                continue
            text = "".join(delta[name] for name in TEXT_FIELDS if isinstance(delta.get(name), str))
            if text:
                if self.first is None:
                    self.first = stamp
                else:
                    self.gaps_ms.append((stamp - self.last) / 1e6)
                self.last = stamp
                self._hear(text)

    def _hear(self, text: str) -> None:
        """Count a chunk and look for stop tokens, also across chunks; only the end of the text is kept."""
        self.chunks += 1
        longest = max(map(len, self.stop_tokens), default=1)
        seen = self.text[-longest:] + text
        self.leaked.update(token for token in self.stop_tokens if token and token in seen)
        self.text = (self.text + text)[-ANSWER_CHARACTERS:]

    def replicate(self, sent: int, gate_ttft_ms: float) -> Replicate:
        if not (self.done or self.finished):
            return failed(f"broken stream: {self._unfinished()}")
        try:
            prompt, completion, cached = self._tokens()
            decode_ms = self._decode_ms()
        except ValueError as error:
            return failed(str(error))
        remarks = ["tokens counted from chunks"] if completion is None else []
        tokens = self.chunks if completion is None else completion
        if tokens <= 0:
            return Replicate(error=NOTHING_SAID)
        if self.first is None:
            remarks.append("no visible text")
        if degenerate(self.text):
            remarks.append("degenerate answer")
        total_ms = (self.ended - sent) / 1e6
        ttft_ms = total_ms if self.first is None else (self.first - sent) / 1e6
        if not (total_ms > 0 and ttft_ms > 0):
            return Replicate(error="a duration that is not positive")
        if self.first is None and ttft_ms > gate_ttft_ms:
            return Replicate(
                error=f"no token within the gate of {gate_ttft_ms:.0f} ms", gate_missed=True
            )
        return Replicate(
            ttft_ms=ttft_ms,
            tps=tokens / total_ms * 1000,
            decode_tps=(tokens - 1) / decode_ms * 1000 if tokens > 1 and decode_ms else None,
            prefill_tps=prompt / ttft_ms * 1000 if prompt else None,
            total_ms=total_ms,
            prompt_tokens=prompt,
            completion_tokens=tokens,
            cached_tokens=cached,
            leaked_token=next((token for token in self.stop_tokens if token in self.leaked), None),
            remarks=tuple(remarks),
        )

    def _unfinished(self) -> str:
        """Why this is no whole answer: the server's words where the body is an error and no stream."""
        if self.ended:
            return "ended without [DONE], finish reason or closing usage"
        with contextlib.suppress(ValueError):
            words = error_words(decoded(self.head.decode("utf-8", errors="replace")))
            if words is not None:
                return words
        start = self.head[:60].decode("utf-8", errors="replace").strip()
        return f"no event in it: {start}" if start else "ended without [DONE]: it is empty"

    def _decode_ms(self) -> float | None:
        """How long decoding took, by the server's own clock where it tells. Raises ValueError."""
        own = self.usage.get("macprovider_generation_ms")
        if own is not None:
            if isinstance(own, bool) or not isinstance(own, int | float) or not 0 <= own < math.inf:
                message = f"usage: macprovider_generation_ms is not a duration: {own!r:.40}"
                raise ValueError(message)
            return float(own) or None
        arrived_ms = 0.0 if self.first is None else (self.last - self.first) / 1e6
        return arrived_ms if arrived_ms >= SHORTEST_DECODE_MS else None

    def _tokens(self) -> tuple[int | None, int | None, int | None]:
        """Prompt, completion and cached tokens. Raises ValueError for a figure that cannot be."""
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        completion = _count("completion_tokens", self.usage.get("completion_tokens"))
        generated = "macprovider_generated_completion_tokens"  # hidden channels included
        completion = _count(generated, self.usage.get(generated)) or completion
        if completion == 0 and self.chunks:
            message = "usage: completion_tokens is 0 though there was text"
            raise ValueError(message)
        return (
            _count("prompt_tokens", self.usage.get("prompt_tokens")),
            completion,
            _count("cached_tokens", cached),
        )


def _count(name: str, value: object) -> int | None:
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
