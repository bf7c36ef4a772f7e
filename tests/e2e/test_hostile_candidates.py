"""Candidates that misbehave in every way, one after the other in one run: each is a value, and the good one is found.

The home itself checks at its end that no process is left and that the port is free.
"""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from tests.support.home import Home, poll

GROWTH_BYTES = 48 * 1024 * 1024
"""What a run itself takes beside an idle agent; the bomb alone would be 200 MB."""
GOOD = "acme/good-1B"
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "redirects": ({"replicates": [{"sends": "redirect"}]}, "HTTP 307"),
    "packs": ({"replicates": [{"sends": "packed"}]}, "packed (gzip)"),
    "head-without-end": ({"replicates": [{"sends": "head"}]}, "broken stream"),
    "line-without-end": ({"replicates": [{"sends": "line"}]}, "a line of more than"),
    "comments-without-end": ({"replicates": [{"sends": "comments"}]}, "broken stream: more than"),
    "binary": ({"replicates": [{"sends": "binary"}]}, "broken stream"),
    "another-model": ({"lists": ["acme/another-3B"]}, "does not list the model"),
    "stolen-port": ({"port_is_stolen": True, "load_s": 0.5}, "during load"),
    "escapes": ({"escapes": True, "replicates": [{"status": 500}]}, "HTTP 500"),
    "ignores-sigterm": (
        {"ignores_sigterm": True, "helper": True, "replicates": [{"status": 500}]},
        "HTTP 500",
    ),
    "loud": (
        {"loud": True, "replicates": [{"status": 500, "says": "\x00\x1b[2J" * 9}]},
        "HTTP 500",
    ),
}


@pytest.mark.slow
def test_no_candidate_can_do_more_than_lose(home: Home) -> None:
    home.settings("[provider]\nstop_grace_s = 0.5\nready_timeout_s = 5\n")
    models = {f"acme/{name}-7B": behaviour for name, (behaviour, _) in HOSTILE.items()}
    home.provider({**models, GOOD: {}})
    home.start_daemon()
    assert home.daemon is not None
    agent = psutil.Process(home.daemon.pid)
    before, largest = agent.memory_info().rss, 0
    run_id = home.begin(*models, GOOD, gate_ttft_ms=20_000, stage1_replicates=1)

    def over() -> bool:
        nonlocal largest
        largest = max(largest, agent.memory_info().rss)
        return bool(home.rpc("status")["run"]["state"] == "finished")

    poll(over, "the run has ended", 100)
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "ok"
    assert document["recommendation"]["model"] == GOOD
    reasons = {entry["model"]: entry["reason"] for entry in document["infeasible"]}
    for name, (_, words) in HOSTILE.items():
        assert words in reasons[f"acme/{name}-7B"], (name, reasons)
    assert all(reason.isprintable() for reason in reasons.values())
    assert largest - before < GROWTH_BYTES
    assert [process.pid for process in home.processes() if "macprovider" in process.name()] == []
    logs = (home.path / "state" / "autotuned" / "runs" / run_id).iterdir()
    assert max(path.stat().st_size for path in logs) <= 4 * 1024 * 1024 + 4096
