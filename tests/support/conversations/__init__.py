"""Conversations of clients and agents, kept for ever: one JSON object a line, `{"from", "message"}` in order.

`protocol-1.jsonl` is what a client and an agent of 0.1.0 really said; the other two are the same as an imagined
agent of that protocol would have said it with fewer, or with more, fields, events and methods.
They are never recorded again: whatever speaks protocol 1 has to go on understanding them. A later version
adds a file of its own with `python -m tests.support.conversations.record NAME`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Line = dict[str, Any]


def read(name: str) -> list[Line]:
    """The lines of a conversation."""
    text = (HERE / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def exchanges(lines: list[Line]) -> list[tuple[Line, Line]]:
    """Each call with its answer."""
    answers = {
        line["message"]["id"]: line["message"]
        for line in lines
        if line["from"] == "agent" and "id" in line["message"]
    }
    return [
        (line["message"], answers[line["message"]["id"]])
        for line in lines
        if line["from"] == "client"
    ]


@contextlib.contextmanager
def recorded_agent(lines: list[Line], path: Path) -> Iterator[list[Line]]:
    """Serve on the socket `path` what the agent of a conversation said; yields the calls that arrive.

    A method is answered with what it was answered next in the conversation, at last again and again;
    `subscribe` is followed by all events. An unrecorded method is unknown.
    """
    answers: dict[str, list[Line]] = {}
    for call, answer in exchanges(lines):
        answers.setdefault(call["method"], []).append(answer)
    events = [line["message"] for line in lines if line["message"].get("method") == "event"]
    heard: list[Line] = []
    connected: list[socket.socket] = []

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            connected.append(self.request)
            for line in self.rfile:
                call = json.loads(line)
                heard.append(call)
                known = answers.get(call["method"])
                if known is None:
                    self.say({"error": {"code": -32601, "message": "Method not found"}}, call)
                    continue
                self.say(known.pop(0) if len(known) > 1 else known[0], call)
                if call["method"] == "subscribe":
                    self.wfile.write(
                        b"".join(json.dumps(event).encode() + b"\n" for event in events)
                    )

        def say(self, answer: Line, call: Line) -> None:
            self.wfile.write(
                json.dumps({**answer, "jsonrpc": "2.0", "id": call["id"]}).encode() + b"\n"
            )

    class Agent(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Agent(str(path), Connection) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            for connection in connected:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join()
