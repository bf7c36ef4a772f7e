"""A scripted server that any description can start: it serves what its command line names, whatever the flags.

Copied under a server's name. Answers `--version` and `--help` as the shipped ones do. Standard library only.
"""

from __future__ import annotations

import http.server
import json
import sys
import time
from typing import Any

FLAGS = (
    "--no-join --model --decode-concurrency --prompt-concurrency --prompt-cache-size --kv-bits "
    "--quantized-kv-start --log-level"
)
WORDS = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    """Lists every word of its command line as a model, and answers each chat with five tokens."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models; any other path says that it is well."""
        self._send(json.dumps({"data": [{"id": word} for word in WORDS]}), "application/json")

    def do_POST(self) -> None:
        """A stream with usage."""
        time.sleep(0.02)  # faster than anything real is refused as implausible
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = len(json.dumps(request["messages"])) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": 5}
        usage["prompt_tokens_details"] = {"cached_tokens": 0}  # type: ignore[assignment]
        chunks: list[Any] = [
            {"choices": [{"delta": {"content": word}}]}
            for word in ("one ", "two ", "three ", "4 ", "5")
        ]
        chunks += [{"choices": [], "usage": usage}]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._send("".join([*lines, "data: [DONE]\n\n"]), "text/event-stream")

    def _send(self, text: str, kind: str) -> None:
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Answer a question, or serve until SIGTERM."""
    if "--version" in WORDS:
        print("version: 1.2.3")
    elif "--help" in WORDS:
        print(FLAGS)
    elif "--port" not in WORDS:
        sys.exit(64)
    else:
        port = int(WORDS[WORDS.index("--port") + 1])
        http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
