"""Our figures beside those of a public load generator, AIPerf, on one server whose true times are known.

    python -m venv aiperf && aiperf/bin/pip install aiperf      # 1.2 GB, so never in the usual set-up
    python benchmarks/peers.py --aiperf aiperf/bin/aiperf [--requests 20] [--streams 1]

The server stamps when a request has arrived whole, when it sends the first text and when it ends. Shown: how far
the mean figures of each are from the server's own, and how many seconds each took beside the requests themselves.
Without AIPerf only our own line is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from autotuned.engine.measure import chat, wave
from autotuned.engine.measure.prompt import text_of
from tests.support.home import poll
from tests.support.models import tokenizer

TTFT_MS, TOKENS_PER_S, TOKENS = 300, 40, 24
LIMIT_S = 300
PRINTING = threading.Lock()


class Planned(http.server.BaseHTTPRequestHandler):
    """Answers each chat after 300 ms with 24 tokens, one every 25 ms, and keeps what it really did."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models, which is asked for before a test."""
        self.whole(
            json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()
        )

    def do_POST(self) -> None:
        """One stream by the plan."""
        self.rfile.read(int(self.headers["Content-Length"]))
        arrived = time.perf_counter()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        first = 0.0
        for index in range(TOKENS):
            sleep_until(arrived + TTFT_MS / 1000 + index / TOKENS_PER_S)
            first = first or time.perf_counter()
            self.event({"choices": [{"index": 0, "delta": {"content": "word "}}]})
        usage = {"prompt_tokens": 100, "completion_tokens": TOKENS, "total_tokens": 100 + TOKENS}
        ended = time.perf_counter()
        self.event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        took = {"ttft_ms": 1000 * (first - arrived), "total_ms": 1000 * (ended - arrived)}
        with PRINTING:
            print(json.dumps(took), flush=True)

    def event(self, content: Mapping[str, Any]) -> None:
        """One event, at once."""
        whole = {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            **content,
        }
        self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
        self.wfile.flush()

    def whole(self, body: bytes) -> None:
        """A plain answer."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """Says nothing of clients that hang up early, as the probe before a test does."""

    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Nothing to tell."""


def sleep_until(moment: float) -> None:
    """Sleep to within a millisecond, then spin."""
    while (left := moment - time.perf_counter()) > 0:
        if left > 0.0015:
            time.sleep(left - 0.001)


async def ours(url: str, requests: int, streams: int) -> tuple[float, float]:
    """Mean TTFT and mean time of a whole request, in ms; in waves of so many streams."""
    found = []
    for turn in range(0, requests, streams):
        asked = [
            chat.ChatRequest(
                f"{url}/v1/chat/completions", "m", f"{turn + number} {text_of(400, None)}", TOKENS
            )
            for number in range(streams)
        ]
        sent = await wave.send(asked, gate_ttft_ms=60_000, timeout_s=60, stop_tokens=())
        for replicate in sent.replicates:
            assert replicate.error is None, replicate.error
            found.append((replicate.ttft_ms or 0.0, replicate.total_ms or 0.0))
    return statistics.mean(row[0] for row in found), statistics.mean(row[1] for row in found)


def aiperf(
    program: str, url: str, requests: int, streams: int, folder: Path
) -> tuple[float, float]:
    """The same of AIPerf, out of the file that it exports."""
    words = folder / "tokenizer"
    words.mkdir()
    tokenizer().save(str(words / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    (words / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    flags = {
        "-m": "m",
        "--url": url,
        "--endpoint-type": "chat",
        "--concurrency": str(streams),
        "--request-count": str(requests),
        "--synthetic-input-tokens-mean": "100",
        "--output-tokens-mean": str(TOKENS),
        "--tokenizer": str(words),
        "--ui": "none",
        "--artifact-dir": str(folder / "out"),
    }
    command = [program, "profile", "--streaming", "--use-server-token-count"]
    command += [word for pair in flags.items() for word in pair]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    exported = next((folder / "out").rglob("profile_export_aiperf.json"), None)
    if exported is None:
        sys.exit(f"AIPerf exported nothing: {(done.stdout + done.stderr)[-2000:]}")
    figures = json.loads(exported.read_text(encoding="utf-8"))
    return float(figures["time_to_first_token"]["avg"]), float(figures["request_latency"]["avg"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--aiperf", default=shutil.which("aiperf"), help="the program AIPerf")
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--streams", type=int, default=1, help="requests at once")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve()
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        table(server, flags.aiperf, flags.requests, flags.streams)
    finally:
        server.terminate()
        server.wait()


def serve() -> NoReturn:
    """The server, in a process of its own: its port, then a line a request."""
    server = Server(("127.0.0.1", 0), Planned)
    print(server.server_address[1], flush=True)
    server.serve_forever()
    raise AssertionError


def table(server: subprocess.Popen[str], program: str | None, requests: int, streams: int) -> None:
    """One line for each that measures."""
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    truths: list[Mapping[str, float]] = []
    threading.Thread(
        target=lambda: truths.extend(map(json.loads, server.stdout or ())), daemon=True
    ).start()
    print(f"{requests} requests, {streams} at once, load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<12}{'TTFT, ms':>10}{'error':>9}{'request, ms':>13}{'error':>9}{'own seconds':>13}")
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            "autotuned": lambda: asyncio.run(ours(url, requests, streams))
        }
        if program is not None:
            path = str(Path(program).absolute())
            ways["AIPerf"] = lambda: aiperf(path, url, requests, streams, Path(folder))
        for name, measure in ways.items():
            before, began = len(truths), time.perf_counter()
            ttft, total = measure()
            wall = time.perf_counter() - began
            poll(lambda least=before + requests: len(truths) >= least, "the server's own stamps")  # type: ignore[misc]
            made = truths[before:][-requests:]
            true_ttft = statistics.mean(row["ttft_ms"] for row in made)
            true_total = statistics.mean(row["total_ms"] for row in made)
            own = wall - sum(row["total_ms"] for row in made) / 1000 / streams
            print(
                f"{name:<12}{ttft:>10.1f}{ttft - true_ttft:>+9.2f}{total:>13.1f}"
                f"{total - true_total:>+9.2f}{own:>13.1f}"
            )


if __name__ == "__main__":
    main()
