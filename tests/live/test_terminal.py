"""A live server that somebody runs from a terminal: nobody is surprised that it stays stopped."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import Any

import pytest

from tests.support.home import Home, RpcError, Y, far, poll, port_is_free
from tests.support.live import Foreground

SECRET = "hf_0123456789abcdefghij"  # noqa: S105 - a planted one


def small(home: Home, *words: str) -> tuple[str, ...]:
    """The words of a small run."""
    axes = ("--kv-bits-axis", "unset", "--max-batch-axis", "1", "--port", str(home.port))
    return ("start", "--candidate-models", Y, *axes, *words)


def test_the_refusal_names_both_flags_and_says_that_without_the_second_it_stays_stopped(
    home: Home,
) -> None:
    home.provider({Y: {}})
    live = Foreground(home)
    home.start_daemon()
    refused = home.ctl(*small(home))
    assert refused.returncode == 7
    error, hint = refused.stderr.strip().splitlines()
    assert f"foreground-PID-{live.process.pid}" in error
    assert "--drain --restart-foreground" in error
    assert "with --drain alone it stays stopped" in error
    assert hint.startswith("hint: autotunectl start --drain --restart-foreground")
    plan = home.ctl(*small(home, "--drain", "--dry-run"))
    assert "stays stopped after the run; start it again with: cd" in plan.stderr
    assert live.alive()


@pytest.mark.slow
def test_a_drain_alone_says_before_it_stops_anything_how_it_is_started_again_until_it_runs(
    home: Home,
) -> None:
    home.provider({Y: {}}, live={"code_of_sigterm": 143})
    live = Foreground(home, "--api-key", SECRET, "--name", "it's mine")
    home.start_daemon()
    begun = home.ctl(*small(home, "--drain", "--json"))
    (warning,) = [w for w in json.loads(begun.stdout)["warnings"] if "stays stopped" in w]
    command = warning.partition("start it again with: ")[2]
    assert SECRET not in begun.stdout + begun.stderr
    run_id = json.loads(begun.stdout)["run_id"]
    home.rpc("wait", run_id=run_id, timeout_s=30)
    assert live.process.wait(10) == 143, "which is no crash"

    told_at, stopped_at = (
        min(
            seq
            for seq, event in home.sql("SELECT seq, type || fields_json FROM events")
            if part in event
        )
        for part in ("stays stopped", "drain.begun")
    )
    assert told_at < stopped_at
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "ok", document["error"]
    assert document["left_stopped"] == command
    assert warning in document["warnings"]
    shown = home.ctl("show", run_id)
    assert f"start it: {command}" in shown.stdout
    for words in (("status",), ("provider", "status")):
        told = home.ctl(*words)
        assert told.returncode == 0
        assert f"foreground-PID-{live.process.pid}, stopped by run {run_id}" in told.stdout
        assert command in told.stdout

    assert home.daemon is not None
    home.daemon.terminate()
    home.daemon.wait(30)
    home.start_daemon()
    assert home.rpc("status")["left_stopped"]["command"] == command, "told by the next agent too"
    folder, _, line = command.partition(" && ")
    assert shlex.split(folder) == ["cd", str(live.cwd)]
    again = subprocess.Popen(
        ["/bin/sh", "-c", f"{folder} && exec {line}"], env=home.environ, start_new_session=True
    )
    try:
        poll(lambda: not port_is_free(live.port), "it serves again")
        poll(lambda: home.rpc("status")["left_stopped"] is None)
    finally:
        again.kill()
        again.wait()
    assert home.rpc("status")["left_stopped"] is None, "once seen to serve, it is the operator's"


@pytest.mark.slow
def test_a_scheduled_run_stops_a_server_in_a_terminal_only_where_the_schedule_says_so(
    home: Home,
) -> None:
    home.provider({Y: {}})
    live = Foreground(home)
    home.start_daemon()
    request: dict[str, Any] = {"candidate_models": [Y], "port": home.port, "kv_bits_axis": [None]}
    home.rpc("schedule.set", at=far(), drain=True, request={**request, "max_batch_axis": [1]})
    with pytest.raises(RpcError, match="schedule set --drain --restart-foreground") as refused:
        home.rpc("schedule.run_now")
    assert refused.value.data["exit_reason"] == "provider_conflict"
    assert live.alive()
    by_hand = home.ctl("schedule", "run-now")
    assert by_hand.returncode == 7
    assert "autotunectl schedule set --drain --restart-foreground" in by_hand.stderr

    words = ("schedule", "set", "--at", "03:30", "--drain", "--restart-foreground")
    axes = ("--candidate-models", Y, "--port", str(home.port), "--kv-bits-axis", "unset")
    done = home.ctl(*words, *axes, "--max-batch-axis", "1")
    assert "may restart a server in a terminal" in done.stdout
    assert home.rpc("schedule.get")["restart_foreground"] is True
    run_id = home.rpc("schedule.run_now")["run_id"]
    home.rpc("wait", run_id=run_id, timeout_s=30)
    document = home.rpc("result", run_id=run_id)
    assert (document["exit_reason"], document["left_stopped"]) == ("ok", None)
    assert live.process.wait(10) == 0
    poll(lambda: not port_is_free(live.port), "it serves again")
