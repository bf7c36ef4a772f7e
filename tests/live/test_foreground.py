"""A live provider that somebody started by hand: identified beyond its pid, restarted only when asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from autotuned.core.lease import Foreground as Target
from tests.support.home import Home, RpcError, Y, poll, port_is_free
from tests.support.live import Foreground


@pytest.mark.slow
def test_a_foreground_provider_is_drained_and_stays_down_unless_asked(home: Home) -> None:
    home.provider({Y: {}})
    live = Foreground(home)
    home.start_daemon()
    with pytest.raises(RpcError, match=f"foreground-PID-{live.process.pid}.*--drain"):
        home.begin(Y)
    assert live.alive()
    document = home.tune(Y, drain=True)
    assert document["exit_reason"] == "ok"
    assert live.process.wait(10) == 0
    assert live.running() == []
    assert home.rpc("status")["lease"] is None
    assert home.tune(Y)["exit_reason"] == "ok", "nothing is owed, so the next run may begin"


@pytest.mark.slow
def test_a_foreground_provider_is_restarted_as_it_was_when_asked(home: Home) -> None:
    home.provider({Y: {}})
    live = Foreground(home, "--config", "/nowhere/a name; with $signs", ODD="a b\tc=d")
    home.start_daemon()
    words: tuple[str, ...] = (
        "start",
        "--wait",
        "--drain",
        "--restart-foreground",
        "--candidate-models",
        Y,
    )
    words += ("--port", str(home.port), "--kv-bits-axis", "unset", "--max-batch-axis", "1")
    done = home.ctl(*words)
    assert done.returncode == 0, done.stderr
    (again,) = poll(live.running)
    poll(lambda: not port_is_free(live.port), "it serves")
    assert again.pid != live.process.pid
    assert again.cmdline() == psutil.Process(again.pid).cmdline()
    assert Path(again.cwd()) == live.cwd
    first, second = live.starts()
    assert second["argv"] == first["argv"]
    assert second["environment"]["ODD"] == "a b\tc=d"
    ours = {name for name in second["environment"] if name.startswith("AUTOTUNED")}
    assert ours == {name for name in first["environment"] if name.startswith("AUTOTUNED")}
    assert psutil.Process(again.pid).ppid() in (1, *_reapers())
    log = home.path / "state" / "autotuned" / "live-provider.log"
    assert log.exists()
    assert log.stat().st_mode & 0o777 == 0o600


def _reapers() -> set[int]:
    """Whoever adopts orphans here."""
    return {parent.pid for parent in psutil.Process().parents()}


@pytest.mark.slow
def test_a_foreground_provider_that_does_not_end_is_not_killed(home: Home) -> None:
    home.provider({Y: {}}, live={"ignores_sigterm": True})
    live = Foreground(home)
    document = home.tune(Y, drain=True, restart_foreground=True, drain_grace=1.0)
    assert document["exit_reason"] == "provider_conflict"
    assert f"foreground-PID-{live.process.pid}" in document["error"]["message"]
    assert live.alive()
    assert home.starts() == [None]
    assert home.rpc("status")["lease"] is None


@pytest.mark.slow
def test_a_stranger_on_the_port_is_refused_even_with_drain(home: Home) -> None:
    home.provider({Y: {}})
    script = (
        f"import socket,time; s=socket.create_server(('127.0.0.1',{home.port})); time.sleep(60)"
    )
    stranger = subprocess.Popen([sys.executable, "-c", script])
    try:
        poll(lambda: not port_is_free(home.port))
        with pytest.raises(RpcError, match=f"port-held-by .* pid {stranger.pid}") as refused:
            home.begin(Y, drain=True)
        assert refused.value.data["exit_reason"] == "provider_conflict"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_recycled_pid_is_never_signalled() -> None:
    from autotuned.host.managers import stopping

    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        target = Target(stranger.pid, "another start", ("macprovider-cli", "serve"), "/", None)
        assert stopping._terminate(target) is None
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
    finally:
        stranger.kill()
        stranger.wait()
