"""How cells are measured and compared, seen from outside."""

from __future__ import annotations

import re
import sqlite3

import pytest

from tests.support.home import Home, RpcError, Y


def planned(*figures: tuple[float, float]) -> dict[str, object]:
    """Replicates of (tokens per second end to end, TTFT in ms)."""
    return {"replicates": [{"tps": tps, "ttft_ms": ttft} for tps, ttft in figures]}


def test_the_median_of_three_replicates_is_recorded(home: Home) -> None:
    home.provider({Y: planned((200, 5), (210, 5), (205, 5))})
    home.tune(Y)
    [(tps, count, fits)] = home.sql(
        "SELECT agg_throughput_tps, replicates_n, fits FROM tune_trials WHERE stage = 2"
    )
    samples = sorted(row[0] for row in home.sql("SELECT tps FROM samples ORDER BY id DESC LIMIT 3"))
    assert (tps, count, fits) == (samples[1], 3, 1)
    assert samples[0] < tps < samples[2]


def test_one_failed_replicate_makes_the_trial_infeasible(home: Home) -> None:
    fine = {"tps": 200, "ttft_ms": 5}
    home.provider({Y: {"cells": {"unset/1/2000": {"replicates": [fine, {"status": 500}, fine]}}}})
    document = home.tune(Y)
    assert document["exit_reason"] == "no_feasible"
    assert home.sql("SELECT fits, n_err, kept FROM tune_trials WHERE stage = 2") == [(0, 1, 0)]
    assert "1 of 3 requests failed" in document["stage2"][0]["reason"]


@pytest.mark.parametrize(("second_ttft", "winner"), [(120, 8), (300, None)])
def test_a_tie_goes_to_the_lower_ttft(home: Home, second_ttft: float, winner: int | None) -> None:
    cells = {"unset/1/2000": planned((100, 220)), "8/1/2000": planned((100.5, second_ttft))}
    home.provider({Y: {"cells": cells}})
    document = home.tune(Y, kv_bits_axis=[None, 8], tps_tie_epsilon=0.05)
    assert document["recommendation"]["knobs"]["kv_bits"] == winner


def test_the_recipe_hash_is_the_same_over_runs_and_differs_for_another_binary(
    home: Home,
) -> None:
    home.provider({Y: {}}, version="1.4.0")
    first, second = home.tune(Y)["recipe_hash"], home.tune(Y)["recipe_hash"]
    home.provider({Y: {}}, version="1.5.0")
    third = home.tune(Y)["recipe_hash"]
    assert first == second
    assert first != third
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in (first, third))


def test_every_probe_and_every_cell_is_one_row(home: Home) -> None:
    home.provider({Y: {}})
    home.tune(Y, kv_bits_axis=[None, 4, 8], max_batch_axis=[1, 2], stage2_replicates=1)
    assert home.sql("SELECT stage, count(*) FROM tune_trials GROUP BY stage ORDER BY stage") == [
        (1, 1),
        (2, 6),
    ]
    cells = home.sql("SELECT kv_bits, max_batch FROM tune_trials WHERE stage = 2 ORDER BY id")
    assert cells == [(None, 1), (None, 2), (4, 1), (4, 2), (8, 1), (8, 2)]


def test_a_prototype_database_is_upgraded_in_place(home: Home) -> None:
    home.database.parent.mkdir(parents=True)
    with sqlite3.connect(home.database) as db:
        db.execute(
            "CREATE TABLE tune_trials(id INTEGER PRIMARY KEY AUTOINCREMENT, ts_utc TEXT NOT NULL, run_id TEXT NOT NULL, "
            "model TEXT NOT NULL, target_context INTEGER NOT NULL, max_tokens INTEGER NOT NULL, notes TEXT)"
        )
        db.execute(
            "INSERT INTO tune_trials VALUES (7, '2026-01-01T00:00:00Z', 'old', 'm', 2000, 48, 'kept')"
        )
    db.close()
    home.provider({Y: {}})
    home.tune(Y)
    old = home.sql("SELECT id, stage, run_id, notes, kv_bits FROM tune_trials WHERE run_id = 'old'")
    assert old == [(7, 1, "old", "kept", None)]


def test_the_faster_of_two_contexts_wins(home: Home) -> None:
    cells = {"unset/1/4000": planned((100, 5)), "unset/1/8000": planned((200, 5))}
    home.provider({Y: {"cells": cells}})
    document = home.tune(Y, target_context=4000, max_context_axis=[8000, 4000])
    assert document["recommendation"]["knobs"]["max_context_override"] == 8000
    assert home.sql("SELECT max_context_cap FROM tune_trials WHERE stage = 2 ORDER BY id") == [
        (4000,),
        (8000,),
    ]


def test_a_context_below_the_target_is_refused_before_any_start(home: Home) -> None:
    home.provider({Y: {}})
    with pytest.raises(RpcError, match="2000") as refused:
        home.begin(Y, target_context=4000, max_context_axis=[2000, 4000])
    assert refused.value.data["exit_reason"] == "config_error"
    assert refused.value.data["field"] == "max_context_axis"
    assert "4000" in refused.value.data["rule"]
    assert home.starts() == []
    assert home.sql("SELECT exit_reason, target_context FROM tune_runs") == [("config_error", 4000)]
