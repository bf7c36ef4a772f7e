"""Which model is chosen, seen from outside."""

from __future__ import annotations

import pytest

from tests.support.home import Home, RpcError, X, Y, Z

FAST = {"replicates": [{"ttft_ms": 2, "total_ms": 8}]}
BROKEN = {"replicates": [{"status": 500, "says": "no such luck"}]}

DEFAULTS = [
    "mlx-community/Qwen2.5-32B-Instruct-4bit",
    "mlx-community/Qwen2.5-14B-Instruct-4bit",
    "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit",
    "mlx-community/Llama-3.2-3B-Instruct-4bit",
    "mlx-community/Llama-3.2-1B-Instruct-4bit",
]


def test_the_first_feasible_candidate_wins_and_later_ones_are_never_started(
    home: Home,
) -> None:
    home.provider({X: BROKEN, Y: FAST, Z: FAST})
    document = home.tune(X, Y, Z)
    assert document["exit_reason"] == "ok"
    assert document["recommendation"]["model"] == Y
    assert document["alternates"] == [Z]
    assert home.starts() == [X, Y, Y]
    assert home.sql("SELECT DISTINCT model FROM tune_trials ORDER BY id") == [(X,), (Y,)]


def test_two_infeasible_candidates_leave_two_rows_with_notes(home: Home) -> None:
    home.provider({X: BROKEN, Y: {"exit_code": 137}, Z: FAST})
    document = home.tune(X, Y, Z)
    assert document["recommendation"]["model"] == Z
    assert document["alternates"] == []
    rows = home.sql("SELECT model, notes FROM tune_trials WHERE stage = 1 AND fits = 0 ORDER BY id")
    assert [model for model, _ in rows] == [X, Y]
    assert "no such luck" in rows[0][1]
    assert "likely out of memory" in rows[1][1]


def test_with_nothing_feasible_the_smallest_candidates_reason_comes_first(home: Home) -> None:
    home.provider({Y: {"exit_code": 3}, X: {"exit_code": 4}, Z: {"exit_code": 5}})
    home.start_daemon()
    models = f"{Y},{X},{Z}"
    done = home.ctl(
        "start",
        "--wait",
        "--candidate-models",
        models,
        "--port",
        str(home.port),
        "--target-context",
        "4000",
    )
    assert done.returncode == 3
    assert done.stdout == ""
    reasons = done.stderr[done.stderr.index("no_feasible:") :]
    assert reasons.index("code 5") < reasons.index("code 3") < reasons.index("code 4")
    assert "4000 tokens" in reasons
    assert "--target-context" in reasons
    assert "--candidate-models" in reasons
    assert home.sql("SELECT exit_reason, recommendation_json FROM tune_runs") == [
        ("no_feasible", None)
    ]


def test_every_start_has_no_join(home: Home) -> None:
    home.provider({X: BROKEN, Y: FAST})
    home.tune(X, Y, kv_bits_axis=[None, 8])
    argvs = [entry["argv"] for entry in home.calls("started")]
    assert len(argvs) == 4
    assert all("--no-join" in argv for argv in argvs)


def test_a_binary_without_no_join_is_refused(home: Home) -> None:
    home.provider({X: FAST}, help="OPTIONS: --model --port")
    with pytest.raises(RpcError, match="too old") as refused:
        home.begin(X)
    assert refused.value.data["exit_reason"] == "config_error"
    assert home.starts() == []


def test_without_a_list_the_default_one_is_tried_in_its_order(home: Home) -> None:
    home.provider({"*": {"exit_code": 1}}, cached=False)
    for model in DEFAULTS[1:]:
        home.cache(model)
    document = home.tune()
    assert document["inputs"]["candidate_models"] == DEFAULTS
    assert home.starts() == DEFAULTS[1:]
    assert document["infeasible"][0]["model"] == DEFAULTS[0]
    assert document["infeasible"][0]["reason"].startswith("pre-warm transient: ")


def test_a_list_beats_size_flags_with_one_warning_on_stderr(home: Home) -> None:
    home.provider({X: FAST})
    home.start_daemon()
    flags = [
        "--candidate-models",
        X,
        "--max-model-size",
        "1B",
        "--kv-bits-axis",
        "unset",
        "--max-batch-axis",
        "1",
    ]
    done = home.ctl("start", "--wait", "--port", str(home.port), *flags)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert X in done.stdout


def test_a_small_first_candidate_is_chosen_over_a_larger_later_one(home: Home) -> None:
    home.provider({Z: FAST, X: FAST})
    document = home.tune(Z, X)
    assert document["recommendation"]["model"] == Z
    assert document["alternates"] == []
    assert home.sql("SELECT model FROM tune_trials WHERE stage = 1") == [(Z,)]


def test_size_limits_trim_the_default_list(home: Home) -> None:
    home.provider({"*": {"exit_code": 1}}, cached=False)
    for model in DEFAULTS:
        home.cache(model)
    document = home.tune(max_model_size="8B", min_model_size="3B")
    assert document["inputs"]["candidate_models"] == DEFAULTS[2:4]
    assert home.starts() == DEFAULTS[2:4]
