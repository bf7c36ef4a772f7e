"""`noise`: the machine's own noise, measured by the same engine as a tune, and what is said with it afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.home import Home, RpcError, Y, poll

pytestmark = pytest.mark.slow  # each starts an agent of its own

FAST = {"replicates": [{"ttft_ms": 5, "total_ms": 20}]}
QUICK = ("--idle", "0", "--pairs", "2")


def test_noise_repeats_the_best_cells_and_tells_show_compare_and_the_report(home: Home) -> None:
    home.provider({Y: FAST})
    request: dict[str, Any] = {
        "kv_bits_axis": [None, 8],
        "stage2_replicates": 2,
        "target_context": 256,
    }
    tuned = home.tune(Y, **request)
    assert tuned["exit_reason"] == "ok"
    assert tuned["noise"]["runner_up"] != tuned["recommendation"]["knobs"]
    done = home.ctl("noise", *QUICK, "--port", str(home.port), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"NOISE of this machine, by 2 pairs of {tuned['run_id']}")
    # A run like any other, but for what it recommends
    newest = home.rpc("runs", limit=1)["runs"][0]
    document = home.rpc("result", run_id=newest["run_id"])
    assert (document["trigger"], document["exit_reason"]) == ("noise", "ok")
    assert document["recommendation"] is document["recipe_hash"] is None
    best, second = tuned["recommendation"]["knobs"], tuned["noise"]["runner_up"]
    pair = [best, second, second, best]
    assert [cell["knobs"] for cell in document["stage2"]] == pair * 2
    assert not any(cell["kept"] for cell in document["stage2"])
    measured = document["noise"]["measured"]
    assert (measured["pairs"], measured["replicates"], measured["degrees_of_freedom"]) == (2, 2, 6)
    # The run that it repeated knows
    assert home.rpc("result", run_id=tuned["run_id"])["noise"]["measured"] == measured
    assert "by 2 pairs)" in home.ctl("show", tuned["run_id"]).stdout
    assert "by 2 pairs of further starts" in home.rpc("report", run_id=tuned["run_id"])["html"]
    assert home.ctl("show", newest["run_id"]).stdout == done.stdout
    assert "How far this machine strays" in home.rpc("report", run_id=newest["run_id"])["html"]
    # It is no last good run
    assert f'run_id="{tuned["run_id"]}"' in home.ctl("metrics").stdout
    assert home.rpc("stale")["last_run_id"] == tuned["run_id"]
    with pytest.raises(RpcError, match="no recommendation"):
        home.rpc("apply", run_id=newest["run_id"], dry_run=True)
    again = home.tune(Y, **request)
    found = home.rpc("compare")
    assert (found["a"]["run_id"], found["b"]["run_id"]) == (tuned["run_id"], again["run_id"])
    assert found["differences"]["smallest_difference"] == measured["smallest_difference"]
    assert found["a"]["lead"] == measured["lead"]


def test_noise_can_be_ended_and_is_no_run_to_go_on_with(home: Home) -> None:
    home.provider({Y: FAST})
    tuned = home.tune(Y, stage2_replicates=1, target_context=256)
    begun = home.rpc("noise", pairs=500, idle_s=0, port=home.port)
    poll(lambda: home.rpc("trials", run_id=begun["run_id"])["trials"][2:], "a whole pair")
    home.rpc("cancel")
    home.rpc("wait", run_id=begun["run_id"], timeout_s=30)
    document = home.rpc("result", run_id=begun["run_id"])
    assert (document["exit_reason"], document["recommendation"]) == ("interrupted", None)
    assert document["noise"]["measured"]["pairs"] >= 1
    assert document["noise"]["measured"]["lead"] is None
    assert "measured" in home.rpc("result", run_id=tuned["run_id"])["noise"]
    for which in (begun["run_id"], "latest"):
        with pytest.raises(RpcError) as caught:
            home.rpc("start", resume=which)
        assert caught.value.data["field"] == "resume"


def test_noise_needs_a_run_that_recommends_something(home: Home) -> None:
    home.provider({Y: {"replicates": [{"dies": True}]}})
    home.start_daemon()
    none = home.ctl("noise", *QUICK, "--json")
    assert none.returncode == 11
    assert "there is no good run" in none.stderr
    failed = home.tune(Y)
    refused = home.ctl("noise", failed["run_id"], *QUICK)
    assert refused.returncode == 2
    assert "recommends nothing" in refused.stderr
    with pytest.raises(RpcError, match="belongs to the method noise"):
        home.rpc("start", candidate_models=[Y], trigger="noise", port=home.port)
    everything = json.loads(home.ctl("runs", "--all", "--json").stdout)["runs"]
    assert everything[0]["exit_reason"] == "config_error"
