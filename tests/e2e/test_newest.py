"""The newest run is one that searched: what was refused at the door, or measured noise, never stands in for it."""

from __future__ import annotations

import json

import pytest

from tests.support.home import Home, RpcError, X, Y

pytestmark = pytest.mark.slow  # four runs


def test_refusals_and_noise_never_stand_in_for_the_last_run_that_searched(home: Home) -> None:
    home.provider({X: {}, Y: {}})
    home.start_daemon()
    nothing = home.ctl("watch")
    assert (nothing.returncode, "there is no run yet" in nothing.stderr) == (11, True)
    with pytest.raises(RpcError):
        home.rpc("start", target_context=-1, port=home.port)
    assert home.rpc("status")["run"] is None
    assert home.ctl("show").returncode == 11
    first = home.tune(Y, stage2_replicates=1)["run_id"]
    last = home.tune(Y, stage2_replicates=1)["run_id"]
    assert home.rpc("status")["refused"] is None
    noise = home.rpc("noise", pairs=1, idle_s=0, port=home.port)["run_id"]
    home.rpc("wait", run_id=noise, timeout_s=20)
    refusals = [_refused(home) for _ in range(5)]
    for method in ("result", "wait", "status"):
        found = home.rpc(method)
        assert (found.get("run") or found)["run_id"] == last, method
    assert home.rpc("report")["html"].count(last)
    assert home.rpc("apply", dry_run=True)["run_id"] == last
    assert home.rpc("cancel")["run_id"] == last
    compared = home.rpc("compare")
    assert (compared["a"]["run_id"], compared["b"]["run_id"]) == (first, last)
    status = home.rpc("status")
    assert status["refused"]["run_id"] == refusals[-1]
    assert status["refused"]["exit_reason"] == "config_error"
    shown = home.ctl("status").stdout
    assert last in shown
    assert sum(line.startswith("refused ") for line in shown.splitlines()) == 1
    watched = home.ctl("watch")
    assert watched.returncode == 0
    assert f"{last} has finished: ok" in watched.stderr
    listed = json.loads(home.ctl("runs", "--limit", "3", "--json").stdout)["runs"]
    assert [each["run_id"] for each in listed] == [noise, last, first]
    everything = json.loads(home.ctl("runs", "--all", "--json").stdout)["runs"]
    assert [each["run_id"] for each in everything[:5]] == refusals[::-1]
    good = home.rpc("runs", good=True, limit=1)["runs"]
    assert [each["run_id"] for each in good] == [last]
    assert "autotuned_last_run_ok 1" in home.ctl("metrics").stdout
    newest = home.tune(Y, stage2_replicates=1, retain_runs=2)["run_id"]
    assert [each["run_id"] for each in home.rpc("runs")["runs"]] == [newest, noise]
    assert home.rpc("status")["refused"] is None


def _refused(home: Home) -> str:
    with pytest.raises(RpcError) as refused:
        home.rpc("start", target_context=-1, port=home.port)
    return str(refused.value.data["run_id"])


def test_a_damaged_database_is_told_of_until_it_is_acknowledged(home: Home) -> None:
    home.database.parent.mkdir(parents=True, exist_ok=True)
    home.database.write_bytes(b"no database" * 1000)
    home.start_daemon()
    (aside,) = home.rpc("status")["set_aside"]
    assert ".corrupt-" in aside
    assert f"database  begun anew: the former one was damaged, see {aside}" in (
        home.ctl("status").stdout
    )
    (check,) = [each for each in home.rpc("doctor")["checks"] if each["name"] == "store"]
    assert check["level"] == "warning"
    assert aside in check["detail"]
    home.ctl("doctor", "--acknowledge")
    assert home.rpc("status")["set_aside"] == []
    (check,) = [each for each in home.rpc("doctor")["checks"] if each["name"] == "store"]
    assert check["level"] == "info"
