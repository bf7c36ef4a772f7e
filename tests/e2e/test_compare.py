"""`compare` and `start --compare`, seen from outside."""

from __future__ import annotations

import json

import pytest

from tests.support.home import Home, RpcError, Y

pytestmark = pytest.mark.slow  # each starts an agent of its own


def planned(*tps: float) -> dict[str, object]:
    return {"replicates": [{"tps": value, "ttft_ms": 5} for value in tps]}


def test_the_last_two_good_runs_are_compared_and_what_is_missing_is_named(home: Home) -> None:
    home.provider({Y: planned(200, 204, 202)})
    home.start_daemon()
    with pytest.raises(RpcError, match="no good run yet") as missing:
        home.rpc("compare")
    assert missing.value.code == -32003
    first = home.tune(Y)["run_id"]
    alone: list[dict[str, str]] = [{}, {"a": first}, {"b": first}]
    for params in alone:
        with pytest.raises(RpcError, match=first) as missing:
            home.rpc("compare", **params)
        assert missing.value.code == -32003
    home.provider({Y: planned(1000, 1040, 1020)})
    second = home.tune(Y)["run_id"]
    home.provider({Y: {"exit_code": 1}})
    failed = home.tune(Y)["run_id"]

    every: list[dict[str, str]] = [{}, {"a": first}, {"b": second}, {"a": first, "b": second}]
    answers = [home.rpc("compare", **params) for params in every]
    found = answers[0]
    assert (found["a"]["run_id"], found["b"]["run_id"]) == (first, second)
    assert all(answer == found for answer in answers)
    tps = found["differences"]["figures"][0]
    assert (tps["name"], tps["verdict"]) == ("tps", "b is better")
    with pytest.raises(RpcError, match="no_feasible") as missing:
        home.rpc("compare", a=failed)
    assert missing.value.code == -32003

    done = home.ctl("compare")
    assert (done.returncode, done.stderr) == (0, "")
    assert "b is better" in done.stdout
    assert json.loads(home.ctl("compare", first, second, "--json").stdout) == found


def test_start_compare_follows_the_run_and_sets_it_against_the_one_before(home: Home) -> None:
    home.provider({Y: planned(2000, 2040, 2020)})
    home.start_daemon()
    words = ["start", "--compare", "--candidate-models", Y, "--port", str(home.port)]
    words += ["--kv-bits-axis", "unset", "--max-batch-axis", "1"]
    first = home.ctl(*words)
    assert first.returncode == 0
    assert "nothing to compare: there is no good run before" in first.stderr
    second = home.ctl(*words)
    assert second.stdout.startswith("RECOMMENDATION")
    assert "\nCOMPARISON\n" in second.stdout
    third = home.ctl(*words, "--json")
    assert json.loads(third.stdout)["exit_reason"] == "ok"
    assert "COMPARISON" in third.stderr
