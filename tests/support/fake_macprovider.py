"""A scripted `macprovider-cli`: serves as a plan says, and writes down all that it sees.

Copied into a folder under that name, it reads `plan.json` beside itself and appends to `calls.jsonl`.
The plan maps a model to its behaviour; `cells` in it override that for knobs written as "4/1/2000"
(`unset/...` without the flag). Without `--no-join` it is the live provider, behaves as `live` says and
takes its port from the configuration where no flag names one. With `today` in the plan it starts by the rules of
today's binary (see `refusal`), and says no only after `refuses_after_s`. A replicate's behaviour is taken from the list `replicates`, whose last
entry repeats. `answers` maps a part of a prompt to what is answered,
or to nothing where the server ends at it. With `shares` it serves as many at once as it has slots (`--max-batch`): prompts one after the other at
`prefill_tps`, decoding at `decode_tps` in all, and beyond `most_slots` or `most_context` the memory is full. Standard library only; knows nothing of the agent.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HELP = "OPTIONS: --model --no-join --port --config --kv-bits --max-batch --max-context"


def record(**entry: Any) -> None:
    """Append one line to the log of calls, in one write."""
    with (HERE / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"at": time.time(), "pid": os.getpid(), **entry}) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    """`/v1/models` and `/v1/chat/completions` as planned."""

    protocol_version = "HTTP/1.1"
    behaviour: dict[str, Any]
    model: str
    measured = 0
    most = 48
    """Tokens that were asked for."""
    slots = threading.Semaphore()
    prefill, counting = threading.Lock(), threading.Lock()
    active = 0

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models."""
        status = self.behaviour.get("models_status", 200)
        listed = self.behaviour.get("lists", [self.model])
        self.answer(
            status,
            json.dumps({"object": "list", "data": [{"id": name} for name in listed]}).encode(),
        )

    def do_POST(self) -> None:
        """A chat: the warm-up plainly, a replicate as planned."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        arrived = time.perf_counter()
        asked = json.loads(body)
        prompt = asked["messages"][-1]["content"]
        warm, self.most = asked["max_tokens"] == 1, asked["max_tokens"]
        plans = self.behaviour.get("replicates", [{}])
        plan = {} if warm else plans[min(Handler.measured, len(plans) - 1)]
        answers = self.behaviour.get("answers", {})
        answer = next((text for part, text in answers.items() if part in prompt), None)
        if answer == "":
            os._exit(1)
        if answer is not None:
            plan = {"chunks": [answer], "tokens": min(8, self.most)}
        Handler.measured += not warm and answer is None
        record(
            request="warm-up" if warm else "replicate" if answer is None else "question",
            characters=len(prompt),
            head=prompt[:80],
            model=asked["model"],
        )
        limit = self.behaviour.get("refuses_beyond")
        if limit is not None and self.prompt_tokens(len(prompt)) > limit:
            self.answer(413, b'{"error": "context_length_exceeded"}')
            return
        if "sends" in plan:
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                hostile(plan["sends"], self.wfile.write)
            return
        if "status" in plan:
            self.answer(
                plan["status"],
                json.dumps({"error": {"message": plan.get("says", "planned")}}).encode(),
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            if "shares" in self.behaviour:
                self.stream_shared(self.behaviour["shares"], asked, len(prompt))
            else:
                self.stream(plan, arrived, len(prompt), warm=warm)
        except BrokenPipeError:
            record(request="abandoned")
        if plan.get("dies"):
            self.wfile.flush()
            os._exit(plan.get("exit_code", 1))

    def stream_shared(self, shares: dict[str, Any], asked: dict[str, Any], characters: int) -> None:
        """As a machine serves several: a slot, a prompt after the other, one decode rate for all."""
        tokens = asked["max_tokens"]
        with Handler.slots:
            with Handler.prefill:
                time.sleep(self.prompt_tokens(characters) / shares["prefill_tps"])
            with Handler.counting:
                Handler.active += 1
            for turn in range(min(tokens, 6)):
                self.event({"choices": [{"index": 0, "delta": {"content": f"word{turn} "}}]})
                time.sleep(tokens / 6 / shares["decode_tps"] * Handler.active)
            with Handler.counting:
                Handler.active -= 1
        counts = {
            "prompt_tokens": self.prompt_tokens(characters),
            "completion_tokens": tokens,
        }
        self.event({"choices": [], "usage": counts})
        self.write("data: [DONE]\n\n")

    def stream(self, plan: dict[str, Any], arrived: float, characters: int, *, warm: bool) -> None:
        """The events at their planned times, counted from the request's arrival."""
        tokens = 1 if warm else plan.get("tokens", min(48, self.most))
        total_s = (
            0.001
            if warm
            else tokens / plan["tps"]
            if "tps" in plan
            else plan.get("total_ms", 12) / 1000
        )
        first_s = min(total_s, 0.0 if warm else plan.get("ttft_ms", 5) / 1000)
        chunks = plan.get("chunks") or [f"word{i} " for i in range(min(tokens, 6))]
        field = plan.get("field", "content")
        for _ in range(plan.get("comments", 0)):
            self.write(": keepalive\n\n")
        self.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        for index, text in enumerate([] if plan.get("hidden") else chunks):
            due = first_s + (total_s - first_s) * index / max(1, len(chunks) - 1)
            sleep_until(arrived + (first_s if index == 0 else due))
            self.event({"choices": [{"index": 0, "delta": {field: text}}]})
            if index == plan.get("breaks_after"):
                return
        sleep_until(arrived + max(first_s, total_s))
        if not plan.get("no_usage"):
            usage = {
                "prompt_tokens": self.prompt_tokens(characters),
                "completion_tokens": tokens,
                **plan.get("usage", {}),
            }
            self.event({"choices": [], "usage": usage})
        self.write("data: [DONE]\n\n")

    def prompt_tokens(self, characters: int) -> int:
        """What a prompt of so many characters comes to, template included."""
        rate = self.behaviour.get("characters_per_token", 4.0)
        return int(characters / rate) + int(self.behaviour.get("overhead", 0))

    def event(self, content: dict[str, Any]) -> None:
        """One event; NaN and infinity are written as Python does."""
        self.write(f"data: {json.dumps(content)}\n\n")

    def write(self, text: str) -> None:
        """Send at once."""
        self.wfile.write(text.encode())
        self.wfile.flush()

    def answer(self, status: int, body: bytes) -> None:
        """A plain JSON answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def hostile(kind: str, write: Callable[[bytes], object]) -> None:
    """Answer as no server should, for as long as somebody listens."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    match kind:
        case "redirect":
            write(
                b"HTTP/1.1 307 Elsewhere\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
            )
        case "packed":
            bomb = gzip.compress(b"data: " + bytes(200 * 1024 * 1024), compresslevel=1)
            write(head + b"Content-Encoding: gzip\r\n\r\n" + bomb)
        case "head":
            write(head)
            while True:
                write(b"X-More: " + b"y" * 4000 + b"\r\n")
        case "line":
            write(head + b"\r\ndata: ")
            while True:
                write(b"x" * 65536)
        case "comments":
            write(head + b"\r\n")
            while True:
                write(b": still here\n" * 5000)
        case _:
            write(bytes(range(256)) * 1000)


def escape(port: int | None) -> None:
    """A process that leaves group and session for good, on `port` where one is given."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    if port is not None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    time.sleep(600)


class Server(http.server.ThreadingHTTPServer):
    """Can bind a port whose last connections linger."""

    allow_reuse_address = True
    daemon_threads = True


def sleep_until(moment: float) -> None:
    """Sleep to a moment of `perf_counter`; the last half millisecond is spun for exactness."""
    while (left := moment - time.perf_counter()) > 0:
        if left > 0.0005:
            time.sleep(left - 0.0005)


def main() -> None:
    """The command line of the real one, as far as it is used."""
    plan = json.loads((HERE / "plan.json").read_text())
    if "--version" in sys.argv:
        time.sleep(plan.get("version_s", 0))
        print(plan.get("version", "1.4.0"))
        sys.exit(plan.get("version_code", 0))
    if "--help" in sys.argv:
        print(plan.get("help", HELP))
        return
    if sys.argv[1:] == ["serve", "--autotune-candidate"]:  # alone it only tells whether it is known
        record(asked="--autotune-candidate")
        known = plan.get("candidate_flags")
        print(
            "--autotune-candidate requires --no-join" if known else "Unknown option",
            file=sys.stderr,
        )
        sys.exit(64)
    if sys.argv[1:2] == ["lifecycle-lease"]:
        sys.exit(0 if (HERE / "maintenance").exists() else 64)
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    for flag in (
        "--model",
        "--port",
        "--config",
        "--kv-bits",
        "--max-batch",
        "--max-context",
        "--candidate-parent-pid",
    ):
        parser.add_argument(flag)
    parser.add_argument("--no-join", action="store_true")
    parser.add_argument("--autotune-candidate", action="store_true")
    flags, _ = parser.parse_known_args()
    behaviour = plan["models"].get(flags.model, plan["models"].get("*", {}))
    knobs = f"{flags.kv_bits or 'unset'}/{flags.max_batch}/{flags.max_context}"
    behaviour = {**behaviour, **behaviour.get("cells", {}).get(knobs, {})}
    config = Path(flags.config) if flags.config else None
    if not flags.no_join:
        behaviour = plan.get("live", {})
    record(
        started=flags.model,
        argv=sys.argv[1:],
        knobs=knobs,
        environment=dict(os.environ),
        config=config.read_text() if config and config.is_file() else None,
        config_mode=oct(config.stat().st_mode & 0o777) if config and config.is_file() else None,
        parent=os.getppid(),
    )
    if "today" in plan:
        start_today(config, flags, plan["today"])
    shares = behaviour.get("shares", {})
    for wall, value in (
        (shares.get("most_slots"), flags.max_batch),
        (shares.get("most_context"), flags.max_context),
    ):
        if wall is not None and value is not None and int(value) > wall:
            print("error: out of memory", flush=True)
            sys.exit(137)
    Handler.slots = threading.Semaphore(int(flags.max_batch or 1))
    serve(flags.model, int(flags.port or configured_port(config)), behaviour)


CATALOGUE = [
    f"model_catalog_{name}" for name in ("key", "model_id", "revision", "sha256", "version", "hash")
]
BOUND = ["model_artifact_sha256", "model_artifact_path", *CATALOGUE]


def refusal(
    config: dict[str, str], flags: argparse.Namespace, today: dict[str, Any]
) -> tuple[int, str] | None:
    """Exit code and last words where today's binary does not start with this configuration, else None."""
    if flags.autotune_candidate and not flags.no_join:
        return 64, "error: --autotune-candidate requires --no-join"
    if flags.candidate_parent_pid and not flags.autotune_candidate:
        return 64, "error: --candidate-parent-pid requires --autotune-candidate"
    source = config.get("max_concurrency_source", "autotune")
    if source not in ("owner", "autotune"):
        return 2, f"error: max_concurrency_source: {source}: not owner or autotune"
    batching, bits = (
        config.get("continuous_batching", "off"),
        flags.kv_bits or config.get("kv_bits"),
    )
    if batching == "on" and bits:
        return (
            2,
            f"error: continuous_batching_kv_bits: kv_bits {bits} is outside continuous batching",
        )
    owned = config.get("max_concurrency_override") if source == "owner" else None
    if config.get("draft_model") and int(flags.max_batch or owned or 1) > 1:
        return 2, "error: draft_model_capacity_shortfall: a draft model serves one slot"
    if flags.no_join or not today.get("binds"):
        return None
    missing = [key for key in BOUND if key not in config]
    if missing:
        return 2, f"error: serve without --no-join needs {', '.join(missing)}"
    if flags.model or config.get("model") != config["model_catalog_key"]:
        return (
            2,
            f"error: model {config.get('model')} is not what {config['model_catalog_key']} names",
        )
    return None


def flat(config: Path | None) -> dict[str, str]:
    """The flat keys of a configuration."""
    lines = config.read_text().splitlines() if config and config.is_file() else []
    pairs = [line.split("#")[0].partition(":") for line in lines if line[:1].isalpha()]
    return {key: value.strip().strip("\"'") for key, _, value in pairs}


def start_today(config: Path | None, flags: argparse.Namespace, today: dict[str, Any]) -> None:
    """End as today's binary does, where it does not start with this configuration."""
    refused = refusal(flat(config), flags, today)
    broken = [
        model for model in today.get("never_starts", ()) if model == flat(config).get("model")
    ]
    if broken and not flags.no_join:
        refused = 1, f"error: {broken[0]}: out of memory"
    if refused is not None:
        time.sleep(today.get("refuses_after_s", 0))
        print(refused[1], file=sys.stderr, flush=True)
        sys.exit(refused[0])


def shout() -> None:
    """Write whatever bytes there are, without end."""
    with contextlib.suppress(OSError):
        while True:
            os.write(2, os.urandom(65536))


def configured_port(config: Path | None) -> int:
    """`port:` of the configuration, or the real program's default."""
    lines = config.read_text().splitlines() if config and config.is_file() else []
    return next((int(line[5:]) for line in lines if line.startswith("port:")), 8080)


def serve(model: str, port: int, behaviour: dict[str, Any]) -> None:
    """Load, fail or serve as planned."""
    for line in behaviour.get("log", ()):
        print(line, flush=True)
    if behaviour.get("ignores_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(behaviour.get("code_of_sigterm", 0)))
    if behaviour.get("helper"):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if behaviour.get("escapes"):
        escape(None)
    if behaviour.get("port_is_stolen"):
        escape(port)
    if behaviour.get("loud"):
        threading.Thread(target=shout, daemon=True).start()
    time.sleep(behaviour.get("load_s", 0))
    if "exit_code" in behaviour:
        sys.stdout.flush()
        os._exit(behaviour["exit_code"])
    if behaviour.get("never_listens"):
        time.sleep(600)
    Handler.behaviour, Handler.model = behaviour, model
    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
