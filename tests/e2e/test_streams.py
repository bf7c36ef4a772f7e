"""What servers do with their streams, and what is made of it; prompts as they arrive at the server."""

from __future__ import annotations

from typing import Any

from tests.support.home import Home, Y, whole_model

GOOD = {"ttft_ms": 3, "total_ms": 20}


UNUSUAL: list[tuple[dict[str, Any], str | None]] = [
    ({"field": "reasoning_content"}, None),
    ({"field": "reasoning"}, None),
    ({"comments": 5}, None),
    ({"chunks": ["all of it at once"]}, None),
    ({"hidden": True}, "no visible text"),
    ({"no_usage": True}, "tokens counted from chunks"),
]


def test_an_unusual_stream_is_good(home: Home) -> None:
    models = {f"acme/unusual-{index}": entry for index, (entry, _) in enumerate(UNUSUAL)}
    home.provider({name: {"replicates": [{**GOOD, **entry}]} for name, entry in models.items()})
    for model, (replicate, remark) in zip(models, UNUSUAL, strict=True):
        document = home.tune(model, stage2_replicates=1)
        assert document["exit_reason"] == "ok", replicate
        sample = document["stage2"][0]["samples"][0]
        assert sample["remarks"] == ([remark] if remark else []), replicate
        assert sample["completion_tokens"] == (6 if "no_usage" in replicate else 48), replicate


DEFECTS: list[tuple[dict[str, Any], str]] = [
    ({"replicates": [{"usage": {"completion_tokens": float("nan")}}]}, "not a count"),
    ({"replicates": [{"usage": {"completion_tokens": float("inf")}}]}, "not a count"),
    ({"replicates": [{"hidden": True, "tokens": 0}]}, "no text and no tokens"),
    ({"replicates": [{"breaks_after": 2}]}, "broken stream"),
    (
        {"replicates": [{"status": 413, "says": "context_length_exceeded"}]},
        "HTTP 413: context_length_exceeded",
    ),
    (
        {"replicates": [{"chunks": ["fine ", "<|im_", "end|>"]}]},
        "stop token leaked into the answer: <|im_end|>",
    ),
    ({"replicates": [{"chunks": ["its own <|spe", "cial|>"]}]}, "<|special|>"),
    ({"replicates": [{"dies": True}]}, "died"),
    ({"overhead": 40, "replicates": [{"dies": True}]}, "the provider answered and then died"),
    (
        {"replicates": [{"dies": True, "breaks_after": 1, "exit_code": 137}]},
        "killed during a request (code 137): likely out of memory",
    ),
    (
        {"replicates": [{"usage": {"prompt_tokens_details": {"cached_tokens": 1900}}}]},
        "prompt cache",
    ),
    (
        {"exit_code": 137, "log": ["loading", "fatal error: no memory", "config: a=1"]},
        "likely out of memory",
    ),
    (
        {"exit_code": 1, "log": ["fatal error: bad shape", "config: a=1"]},
        "fatal error: bad shape",
    ),
]


def test_a_defect_makes_the_candidate_infeasible_with_its_reason(home: Home) -> None:
    models = {f"acme/defect-{index}": entry for index, (entry, _) in enumerate(DEFECTS)}
    home.provider(models)
    document = home.tune(*models, timeout=90)
    assert document["exit_reason"] == "no_feasible"
    said = [entry["reason"] for entry in document["infeasible"]]
    for told, (_, reason) in zip(said, DEFECTS, strict=True):
        assert reason in told
    assert home.sql("SELECT notes FROM tune_trials ORDER BY id") == [(told,) for told in said]


def test_figures_that_cannot_be_make_a_candidate_infeasible(home: Home) -> None:
    home.provider({Y: {"replicates": [{"tokens": 51}]}})
    document = home.tune(Y)
    reason = "implausible: 51 completion tokens, 48 were asked for"
    assert document["infeasible"][0]["reason"] == reason


def test_a_load_that_the_log_tells_has_failed_is_not_waited_for(home: Home) -> None:
    line = "Error: Unsupported model type: acme_new"
    home.provider({Y: {"never_listens": True, "log": [line, "config: a=1"]}})
    document = home.tune(Y, timeout=60)  # the time-out of readiness is 300 s
    assert document["infeasible"][0]["reason"] == f"failed to load: {line}"
    assert home.sql("SELECT n_err, replicates_n FROM tune_trials") == [(1, 0)]


def test_a_line_that_looks_fatal_does_not_end_a_load_that_succeeds(home: Home) -> None:
    home.provider({Y: {"log": ["fatal error: no fans found"], "load_s": 1.2}})
    assert home.tune(Y)["exit_reason"] == "ok"


def test_special_tokens_that_are_layout_are_no_leak(home: Home) -> None:
    home.provider({Y: {"replicates": [{"chunks": ["One.", "\n\n", "Two."]}]}})
    home.cache(Y, files={**whole_model(), "special_tokens_map.json": b'{"eos_token": "\\n\\n"}'})
    assert home.tune(Y)["exit_reason"] == "ok"


def test_doubts_about_answers_are_warnings(home: Home) -> None:
    cells = {"4/1/2000": {"replicates": [{"tokens": 20, "total_ms": 60}]}}
    behaviour = {"replicates": [{"chunks": ["no "] * 16, "total_ms": 60}], "cells": cells}
    home.provider({Y: behaviour})
    document = home.tune(Y, target_context=2000, kv_bits_axis=[None, 4])
    assert "degenerate answer" in document["warnings"]
    (told,) = [line for line in document["warnings"] if line.startswith("answers differ in length")]
    assert "48 tokens in the best cell, 20 in others" in told


def test_todays_binary_gets_the_flags_of_a_candidate_and_paths_of_its_own(home: Home) -> None:
    home.provider({Y: {}}, candidate_flags=True)
    assert home.tune(Y)["exit_reason"] == "ok"
    for start in home.calls("started"):
        argv = start["argv"]
        assert "--autotune-candidate" in argv
        assert argv[argv.index("--candidate-parent-pid") + 1] == str(start["parent"])
        assert "ctl_socket_path" in start["config"]
    assert len(home.calls("asked")) == 1


NEVER_READY: list[tuple[dict[str, Any], str]] = [
    ({"lists": []}, "does not list the model"),
    ({"lists": ["another/model"]}, "does not list the model"),
    ({"models_status": 503}, "HTTP 503"),
    ({"never_listens": True}, "nothing listens"),
]


def test_a_server_that_never_gets_ready_is_infeasible(home: Home) -> None:
    home.settings("[provider]\nready_timeout_s = 2.0\n")
    models = {f"acme/never-{index}": entry for index, (entry, _) in enumerate(NEVER_READY)}
    home.provider(models)
    document = home.tune(*models, timeout=90)
    for entry, (_, reason) in zip(document["infeasible"], NEVER_READY, strict=True):
        assert "not ready within 2 s" in entry["reason"]
        assert reason in entry["reason"]


def test_a_request_is_abandoned_as_soon_as_the_gate_is_missed(home: Home) -> None:
    home.provider({Y: {"replicates": [{"ttft_ms": 60_000, "total_ms": 60_000}]}})
    document = home.tune(Y, gate_ttft_ms=200, stage1_replicates=3)
    assert document["infeasible"][0]["reason"] == "no token within the gate of 200 ms"
    assert len([entry for entry in home.calls("request") if entry["request"] == "replicate"]) == 1


def test_prompts_have_the_right_length_and_are_never_the_same(home: Home) -> None:
    counts = [(2.6, 0), (4.0, 34), (5.3, 12), (1.1, 8), (4.0, 401), (3.3, 990)]
    models = {
        f"acme/counts-{index}": {
            "characters_per_token": rate,
            "overhead": overhead,
            "refuses_beyond": 2000,
        }
        for index, (rate, overhead) in enumerate(counts)
    }
    home.provider(models)
    target = 2000 - 48
    for model in models:
        document = home.tune(model, target_context=2000)
        lengths = [sample["prompt_tokens"] for sample in document["stage2"][0]["samples"]]
        query = "SELECT measured_prompt_tokens FROM tune_trials WHERE run_id = ?"
        lengths += [row[0] for row in home.sql(query, document["run_id"])]
        assert len(lengths) == 5
        assert all(0.98 * target <= length <= target for length in lengths), lengths
    heads = [entry["head"] for entry in home.calls("request") if entry["request"] == "replicate"]
    assert len(set(heads)) == len(heads)


def test_a_server_whose_usage_is_constant_gets_one_request_a_replicate(home: Home) -> None:
    home.provider({Y: {"replicates": [{"usage": {"prompt_tokens": 100}}]}})
    home.tune(Y)
    asked = [entry["request"] for entry in home.calls("request")]
    assert asked == ["warm-up", "replicate", "warm-up", "replicate", "replicate", "replicate"]
