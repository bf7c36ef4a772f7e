"""The client that behaves, in a process of its own: asks for `status` again and again until its input ends.

    python tests/fuzz/beside.py SOCKET

Prints how long each answer took, in milliseconds, as one JSON list; ends with 1 when it got none.
Standard library only, so that what it measures is the agent.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

PAUSE_S = 0.02
PATIENCE_S = 60.0
CALL = b'{"jsonrpc": "2.0", "id": 1, "method": "status", "params": {}}\n'


def main() -> None:
    """Ask until nobody wants to know any more."""
    took: list[float] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(sys.argv[1])
        with connection.makefile("rb") as lines:
            while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
                began = time.perf_counter()
                connection.sendall(CALL)
                answer = json.loads(lines.readline())
                took.append((time.perf_counter() - began) * 1000)
                if "result" not in answer:
                    sys.exit(f"no status: {answer}")
    sys.stdout.write(json.dumps(took))


if __name__ == "__main__":
    main()
