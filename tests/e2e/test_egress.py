"""Nothing but loopback and the model hub is contacted, seen from outside in the system calls."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_hub import fake_hub, model_files
from tests.support.home import Home, RpcError, X, Y, poll
from tests.support.live import LaunchdJob

STRACE = shutil.which("strace")
OPTIONS = ("-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o")
CONNECT = re.compile(r"connect\(\d+, \{sa_family=AF_INET6?, .*?htons\((\d+)\).*?\"([^\"]+)\"")
SEND = re.compile(r"sendto\(\d+, .*sa_family=AF_INET6?.*?htons\((\d+)\).*?\"([^\"]+)\"")
LOOPBACK = ("127.0.0.1", "::1")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(STRACE is None, reason="strace is not installed"),
]


def start_traced(home: Home, trace: Path) -> None:
    """The real agent under strace with all its children, and wait until it answers."""
    assert STRACE is not None
    (home.path / "state").mkdir(exist_ok=True)
    with (home.path / "state" / "agent.log").open("ab") as output:
        tracer = subprocess.Popen(
            [STRACE, *OPTIONS, str(trace), sys.executable, "-m", "autotuned"],
            env=home.environ,
            stdout=output,
            stderr=output,
            cwd="/",
        )
    home.daemon = tracer

    def answers() -> bool:
        try:
            return bool(home.rpc("version")["pid"])
        except (OSError, ValueError):
            return False

    poll(answers, "the traced agent answers")


def contacted(trace: Path) -> set[tuple[str, int]]:
    """Addresses and ports that were connected or sent to."""
    text = trace.read_text(encoding="utf-8", errors="replace")
    found = CONNECT.findall(text) + SEND.findall(text)
    return {(address, int(port)) for port, address in found}


def test_a_run_with_cached_weights_contacts_loopback_only(home: Home, tmp_path: Path) -> None:
    home.provider({X: {}})
    del home.environ["HF_HUB_OFFLINE"]  # nothing forbids it to ask: it has no need to
    start_traced(home, tmp_path / "trace")
    assert home.tune(X, timeout=90)["exit_reason"] == "ok"
    home.close()
    seen = contacted(tmp_path / "trace")
    assert seen, "the candidate was spoken to"
    assert {address for address, _ in seen} <= set(LOOPBACK)
    assert {port for _, port in seen} == {home.port}


def test_a_run_that_fetches_contacts_the_hub_and_nobody_else(home: Home, tmp_path: Path) -> None:
    home.provider({X: {}}, cached=False)
    small, large = model_files()
    with fake_hub() as hub:
        hub.add(X, small, large=large)
        del home.environ["HF_HUB_OFFLINE"]
        home.environ |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "*"}
        start_traced(home, tmp_path / "trace")
        assert home.tune(X, timeout=90)["exit_reason"] == "ok"
        home.close()
        seen = contacted(tmp_path / "trace")
        hub_port = int(hub.url.rsplit(":", 1)[1])
    assert {address for address, _ in seen} <= set(LOOPBACK)
    assert {port for _, port in seen} == {home.port, hub_port}
    assert all(
        re.match(rf"(GET|HEAD) (/api/models/{X}|/{X}/resolve/|/cdn/)", asked) for asked in hub.asked
    ), hub.asked


def test_everything_else_that_an_agent_does_contacts_nobody(home: Home, tmp_path: Path) -> None:
    """A drain, an apply, a restore, a notification, `doctor`, reports: nothing but loopback, and no resolver."""
    home.provider({Y: {}})
    job = LaunchdJob(home, settings="[notify]\ndesktop = true\n")
    del home.environ["HF_HUB_OFFLINE"]
    start_traced(home, tmp_path / "trace")
    document = home.tune(Y, timeout=90, drain=True, apply=True)
    assert document["exit_reason"] == "ok"
    poll(job.back, "the live provider is back")
    for method in ("doctor", "report", "models", "stale", "compare", "status", "rpc.discover"):
        with contextlib.suppress(RpcError):  # one run cannot be compared
            home.rpc(method)
    assert home.ctl("bugreport", str(home.path / "bug.tar.gz")).returncode == 0
    job.take_down()  # launchd's own children are traced too here
    home.rpc("shutdown")
    assert home.daemon is not None
    home.daemon.wait(60)
    seen = contacted(tmp_path / "trace")
    assert seen
    assert {address for address, _ in seen} <= set(LOOPBACK), seen
    assert 53 not in {port for _, port in seen}
