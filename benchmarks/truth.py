"""Are our figures true? Against a server that plans its times, and beside llama.cpp's own timings.

    python benchmarks/truth.py [--quick] [--no-llama]

The server is a process of its own. It stamps the same monotonic clock when a request has arrived whole,
when it sends the first text and when it sends the end; what it stamped is the truth that the figures of
`engine/measure/chat.py` are held against. The target: TTFT within 2 ms, tokens per second within 1 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuned.engine.measure import chat, wave
from autotuned.engine.measure.prompt import text_of

TTFT_MS = (20, 100, 500, 2000)
TOKENS_PER_S = (5, 20, 100, 500)
PATTERNS = {"steady": 1, "bursts": 8, "packed": 4, "tiny": 1}
"""How tokens are sent: tokens an event. Bursts send eight events at once, packed puts four into one,
tiny cuts every event into packets of 16 bytes."""
DECODE_S = 0.4
WITHIN_MS, WITHIN_SHARE = 2.0, 0.01


# --- the server ------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests whose prompt is the plan, and write what was done, one JSON line a request."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer(peer)


def answer(peer: socket.socket) -> None:
    """One request, read whole, then streamed by the plan."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += peer.recv(1 << 20)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    while len(body) < int(length[1] if length else 0):
        body += peer.recv(1 << 20)
    arrived = time.perf_counter_ns()
    prompt = json.loads(body)["messages"][0]["content"]
    plan = json.loads(prompt.split("\n", 1)[0])
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    tokens, step_ns = plan["tokens"], int(1e9 / plan["tps"])
    size = PATTERNS[plan["pattern"]]
    first = 0
    for index in range(0, tokens, size):
        pieces = min(size, tokens - index)
        texts = ["word " * pieces] if plan["pattern"] == "packed" else ["word "] * pieces
        events = [
            f'data: {{"choices":[{{"index":0,"delta":{{"content":"{words}"}}}}]}}\n\n'.encode()
            for words in texts
        ]
        spin_until(arrived + int(plan["ttft_ms"] * 1e6) + index * step_ns)
        first = first or time.perf_counter_ns()
        send(peer, b"".join(events), tiny=plan["pattern"] == "tiny")
    spin_until(arrived + int(plan["ttft_ms"] * 1e6) + (tokens - 1) * step_ns)
    usage = {"prompt_tokens": 100, "completion_tokens": tokens}
    end = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    ended = time.perf_counter_ns()
    peer.sendall(end.encode())
    truth = {"ttft_ms": (first - arrived) / 1e6, "tps": tokens / (ended - arrived) * 1e9}
    print(json.dumps(truth), flush=True)


def send(peer: socket.socket, data: bytes, *, tiny: bool) -> None:
    """At once, or in packets of 16 bytes."""
    size = 16 if tiny else len(data)
    for start in range(0, len(data), size):
        peer.sendall(data[start : start + size])


def spin_until(moment: int) -> None:
    """Sleep to within a millisecond, then spin: exact to some microseconds."""
    while (left := moment - time.perf_counter_ns()) > 0:
        if left > 1_500_000:
            time.sleep((left - 1_000_000) / 1e9)


# --- what is held against it -----------------------------------------------------------------------


@dataclass(frozen=True)
class Error:
    """How far one request's figures are from the truth: milliseconds, and a share."""

    ttft_ms: float
    tps: float


async def errors(port: int, truths: asyncio.StreamReader, pattern: str, quick: bool) -> list[Error]:
    """The grid with one pattern; 2,000 ms with the steady one only, to save a minute."""
    found = []
    await measured(port, truths, {"ttft_ms": 5, "tps": 500, "tokens": 4, "pattern": pattern})
    for ttft in TTFT_MS[: 2 if quick else 4 if pattern == "steady" else 3]:
        for tps in TOKENS_PER_S:
            plan = {
                "ttft_ms": ttft,
                "tps": tps,
                "tokens": max(3, int(tps * DECODE_S)),
                "pattern": pattern,
            }
            found.append(await measured(port, truths, plan))
    return found


async def measured(port: int, truths: asyncio.StreamReader, plan: dict[str, Any]) -> Error:
    """One request by the plan."""
    prompt = json.dumps(plan) + "\n" + text_of(8000, None)
    request = chat.ChatRequest(
        f"http://127.0.0.1:{port}/v1/chat/completions", "m", prompt, plan["tokens"]
    )
    found = await wave.send(
        [request], gate_ttft_ms=60_000, timeout_s=60, stop_tokens=("<|im_end|>",)
    )
    (replicate,) = found.replicates
    assert replicate.error is None, replicate.error
    truth = json.loads(await truths.readline())
    return Error(
        (replicate.ttft_ms or 0) - truth["ttft_ms"], (replicate.tps or 0) / truth["tps"] - 1
    )


async def against_the_plan(quick: bool) -> bool:
    """The table; whether the targets are met at the 95th percentile."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    met = True
    try:
        port = int(await process.stdout.readline())
        print("against planned times        TTFT error, ms            tok/s error, %")
        print("pattern  requests         p50     p95     max        p50     p95     max")
        for pattern in PATTERNS:
            found = await errors(port, process.stdout, pattern, quick)
            ttft = spread([abs(error.ttft_ms) for error in found])
            tps = spread([100 * abs(error.tps) for error in found])
            met &= ttft[1] <= WITHIN_MS and tps[1] <= 100 * WITHIN_SHARE
            figures = (
                "".join(f"{value:8.3f}" for value in ttft)
                + "   "
                + "".join(f"{value:8.3f}" for value in tps)
            )
            print(f"{pattern:8} {len(found):8}    {figures}")
    finally:
        process.terminate()
        await process.wait()
    return met


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile by nearest rank, largest."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[-(-95 * len(ordered) // 100) - 1], ordered[-1]


async def beside_llama() -> None:
    """A real server's own prefill and decode times beside ours, for the same requests."""
    from autotuned.core.gate import STOP_TOKENS
    from autotuned.engine.measure.event_stream import Event
    from autotuned.providers import llama_launcher
    from tests.support.home import free_port
    from tests.support.models import write_gguf

    timings: list[dict[str, float]] = []
    taken = chat.Answer._event

    def spy(self: Any, event: Event) -> None:
        content = json.loads(event.data) if event.data.startswith("{") else {}
        timings.extend([content["timings"]] if "timings" in content else [])
        taken(self, event)

    chat.Answer._event = spy  # type: ignore[method-assign]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        model = write_gguf(Path(folder) / "tiny.gguf")
        flags = [
            "-m",
            str(model),
            "--port",
            str(port),
            "-c",
            "8192",
            "--alias",
            "m",
            "--no-cache-prompt",
        ]
        program = [
            sys.executable,
            "-P",
            llama_launcher.__file__,
            *flags,
            "--cache-ram",
            "0",
            "--jinja",
        ]
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            async with chat.new_client() as client:
                await until_ready(client, port)
                print(
                    "\nbeside llama.cpp's own timings     TTFT - prefill, ms      last text - decode, ms"
                )
                for words in (500, 2000, 8000):
                    rows = []
                    for turn in range(8):
                        prompt = f"{turn} {text_of(words, None)}"
                        request = chat.ChatRequest(
                            f"http://127.0.0.1:{port}/v1/chat/completions", "m", prompt, 48
                        )
                        timings.clear()
                        whole = await wave.send(
                            [request],
                            gate_ttft_ms=60_000,
                            timeout_s=60,
                            stop_tokens=STOP_TOKENS,
                        )
                        (found,) = whole.replicates
                        assert found.error is None, found.error
                        own = timings[-1]
                        rows.append(
                            (
                                (found.ttft_ms or 0) - own["prompt_ms"],
                                (found.total_ms or 0) - (found.ttft_ms or 0) - own["predicted_ms"],
                            )
                        )
                    prefill = statistics.median(row[0] for row in rows[1:])
                    decode = statistics.median(row[1] for row in rows[1:])
                    print(f"  prompt of {words:5} characters {prefill:20.3f} {decode:25.3f}")
        finally:
            process.kill()
            process.wait()
            chat.Answer._event = taken  # type: ignore[method-assign]


async def until_ready(client: Any, port: int) -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200:
                return
        except Exception:  # noqa: BLE001, S110 - not there yet
            pass
        await asyncio.sleep(0.05)
    raise TimeoutError


def main() -> None:
    """The table, and 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="TTFT up to 100 ms only")
    parser.add_argument("--no-llama", action="store_true", help="leave the real server out")
    flags = parser.parse_args()
    if flags.serve:
        serve()
    met = asyncio.run(against_the_plan(flags.quick))
    if not flags.no_llama:
        asyncio.run(beside_llama())
    print(
        f"\nwithin {WITHIN_MS:g} ms and {WITHIN_SHARE:.0%} at the 95th percentile: {'yes' if met else 'NO'}"
    )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
