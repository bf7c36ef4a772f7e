"""A run that was cut off goes on from its stored trials, and ends as if nothing had happened."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.home import Home, RpcError, X, Y, Z, kill, poll

pytestmark = pytest.mark.slow  # each starts an agent of its own

CELLS = {"unset/1/2000": 100, "4/1/2000": 60, "8/1/2000": 140}
LADDER: dict[str, Any] = {
    X: {"exit_code": 1},
    Y: {"cells": {k: {"replicates": [{"tps": v, "ttft_ms": 5}]} for k, v in CELLS.items()}},
    Z: {},
}
AXES: dict[str, Any] = {"kv_bits_axis": [None, 4, 8], "stage2_replicates": 1}


def outcome(document: dict[str, Any]) -> list[Any]:
    """What a run has decided, without what it measured."""
    answer = document["recommendation"]
    cells = [(cell["knobs"], cell["fits"], cell["kept"]) for cell in document["stage2"]]
    names = [entry["model"] for entry in document["infeasible"]]
    return [
        answer["model"],
        answer["knobs"],
        cells,
        names,
        document["alternates"],
        document["recipe_hash"],
    ]


@pytest.mark.parametrize("reached", ["selecting", "climbing"])
def test_a_killed_run_goes_on_and_ends_like_one_that_was_left_alone(
    home: Home, reached: str
) -> None:
    home.provider(LADDER)
    undisturbed = home.tune(X, Y, Z, **AXES)
    slow = {"load_s": 60}
    cells = {**LADDER[Y]["cells"], "4/1/2000": slow}
    stuck = {"load_s": 60} if reached == "selecting" else {"cells": cells}
    home.provider({**LADDER, Y: stuck})
    before = len(home.starts())
    run_id = home.begin(X, Y, Z, **AXES)
    poll(lambda: len(home.starts()) == before + (2 if reached == "selecting" else 4))
    assert home.daemon is not None
    kill(home.daemon)
    poll(lambda: not home.processes(), "candidate and guardian are gone")
    home.provider(LADDER)
    home.start_daemon()
    done = home.ctl("start", "--resume", "--wait")
    assert done.returncode == 0, done.stderr
    resumed = home.rpc("result", run_id=run_id)
    assert resumed["exit_reason"] == "ok"
    assert outcome(resumed) == outcome(undisturbed)
    assert home.sql("SELECT count(*) FROM tune_runs") == [(2,)]
    assert home.starts()[before:].count(X) == 1


def test_a_cancelled_run_goes_on_by_its_id(home: Home) -> None:
    home.provider({**LADDER, Y: {"cells": {**LADDER[Y]["cells"], "8/1/2000": {"load_s": 60}}}})
    run_id = home.begin(X, Y, Z, **AXES)
    poll(lambda: len(home.starts()) == 5)
    home.rpc("cancel")
    assert home.rpc("wait", run_id=run_id)["exit_reason"] == "interrupted"
    home.provider(LADDER)
    assert home.rpc("start", resume=run_id)["run_id"] == run_id
    assert home.rpc("wait", run_id=run_id)["exit_reason"] == "ok"
    document = home.rpc("result", run_id=run_id)
    assert document["recommendation"]["knobs"]["kv_bits"] == 8
    assert [cell["fits"] for cell in document["stage2"]] == [True, True, True]


def test_what_no_longer_holds_is_refused_by_name_and_the_run_stays_as_it_is(home: Home) -> None:
    home.provider({Y: {"load_s": 60}}, version="1.4.0")
    run_id = home.begin(Y)
    poll(home.starts)
    home.rpc("cancel")
    home.rpc("wait", run_id=run_id)
    before = home.sql("SELECT * FROM tune_trials WHERE run_id = ?", run_id)
    with pytest.raises(RpcError, match="target_context: 4000 differs"):
        home.rpc("start", resume=run_id, target_context=4000)
    home.provider({Y: {}}, version="1.5.0")
    with pytest.raises(RpcError, match=r"another binary \(1\.4\.0, now 1\.5\.0\)"):
        home.rpc("start", resume=run_id)
    with pytest.raises(RpcError, match="is no run"):
        home.rpc("start", resume="nope")
    assert home.sql("SELECT * FROM tune_trials WHERE run_id = ?", run_id) == before
    assert home.rpc("result", run_id=run_id)["exit_reason"] == "interrupted"


def test_a_finished_run_cannot_go_on(home: Home) -> None:
    home.provider({Y: {}})
    run_id = home.tune(Y)["run_id"]
    with pytest.raises(RpcError, match="nothing to go on with"):
        home.rpc("start", resume=run_id)
    with pytest.raises(RpcError, match="finds no run that was cut off"):
        home.rpc("start", resume="latest")


def test_adaptive_replicates_ask_a_clear_loser_once(home: Home) -> None:
    cells = {
        "unset/1/2000": {"replicates": [{"tps": 200, "ttft_ms": 5}]},
        "4/1/2000": {"replicates": [{"tps": 90, "ttft_ms": 5}]},
    }
    home.provider({Y: {"cells": cells}})
    home.tune(Y, kv_bits_axis=[None, 4], replicates="auto")
    counts = home.sql("SELECT replicates_n FROM tune_trials WHERE stage = 2 ORDER BY id")
    assert counts == [(3,), (1,)]


def test_a_run_that_goes_on_ends_as_one_that_could_not_apply_where_it_was_asked_to(
    home: Home,
) -> None:
    home.provider({Y: {"total_ms": 300}})
    config = home.path / ".config" / "macprovider" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("- not a mapping\n", encoding="utf-8")
    run_id = home.begin(Y, apply=True, stage2_replicates=3)
    poll(lambda: len(home.calls("request")) > 2, "it measures")
    home.rpc("cancel")
    home.rpc("wait", run_id=run_id, timeout_s=20)
    done = home.ctl("start", "--resume", run_id, "--wait", timeout=60)
    assert done.returncode == 12, done.stderr
    assert "not applied" in done.stderr
