"""What a run costs beyond its loads and requests, and what a plain loop would cost for the same.

    python benchmarks/overhead.py [--load 1.0] [--total 0.8]

A scripted provider loads and answers in planned times. The ratio is the run's duration over the sum of
its loads and requests; the target is at most 1.05. Beside it stands the loop that one would write first:
start, poll for readiness every 2 s, warm up, ask, stop.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TARGET = 1.05
POLL_S = 2.0
AXES = {"kv_bits_axis": [None, 4, 8], "max_batch_axis": [1, 2]}
REPLICATES = 3


def plain_loop(program: str, environ: dict[str, str], model: str, port: int) -> float:
    """One probe and six cells, one after the other; seconds."""
    began = time.monotonic()
    for replicates in [1, *[REPLICATES] * 6]:
        command = [program, "serve", "--model", model, "--no-join", "--port", str(port)]
        server = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        while True:
            time.sleep(POLL_S)
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models"),
            ):
                break
        for tokens in [1, *[48] * replicates]:
            body = {
                "messages": [{"role": "user", "content": "Hi"}],
                "model": model,
                "max_tokens": tokens,
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode()
            )
            with urllib.request.urlopen(request) as response:
                response.read()
        server.terminate()
        server.wait()
    return time.monotonic() - began


def main() -> None:
    """Both ways, the ratios, and 1 when the target is missed."""
    from tests.support.home import Y, home

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", type=float, default=1.0, help="seconds that a load takes")
    parser.add_argument("--total", type=float, default=0.8, help="seconds that a request takes")
    flags = parser.parse_args()
    answer = {"ttft_ms": flags.total * 500, "total_ms": flags.total * 1000}
    with home() as made:
        made.settings(made.private_program())
        made.provider({Y: {"load_s": flags.load, "replicates": [answer]}})
        document = made.tune(Y, timeout=600, stage2_replicates=REPLICATES, **AXES)
        assert document["exit_reason"] == "ok", document["error"]
        timings = document["timings"]
        trials = made.rpc("trials", run_id=document["run_id"])["trials"]
        plain = plain_loop(str(made.bin / made.program), made.environ, Y, made.port)
    useful = timings["load_s"] + timings["requests_s"]
    ratio = timings["total_s"] / useful
    between = (timings["total_s"] - useful) / len(trials) * 1000
    print(
        f"loads {timings['load_s']:.2f} s, requests {timings['requests_s']:.2f} s, {len(trials)} trials"
    )
    print(
        f"run          {timings['total_s']:7.2f} s   ratio {ratio:.3f}   {between:.0f} ms beside each trial"
    )
    print(f"plain loop   {plain:7.2f} s   ratio {plain / useful:.3f}   polls every {POLL_S:g} s")
    print(f"at most {TARGET}: {'yes' if ratio <= TARGET else 'NO'}")
    sys.exit(0 if ratio <= TARGET else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
