"""What servers do with their streams, and what is made of it; prompts as they arrive at the server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.home import Home, Y

GOOD = {"ttft_ms": 3, "total_ms": 20}


@pytest.mark.parametrize(
    ("replicate", "remark"),
    [
        ({"field": "reasoning_content"}, None),
        ({"field": "reasoning"}, None),
        ({"comments": 5}, None),
        ({"chunks": ["all of it at once"]}, None),
        ({"hidden": True}, "no visible text"),
        ({"no_usage": True}, "tokens counted from chunks"),
    ],
)
def test_an_unusual_stream_is_good(
    home: Home, replicate: dict[str, Any], remark: str | None
) -> None:
    home.provider({Y: {"replicates": [{**GOOD, **replicate}]}})
    document = home.tune(Y, stage2_replicates=1)
    assert document["exit_reason"] == "ok"
    assert document["stage2"][0]["samples"][0]["remarks"] == ([remark] if remark else [])
    assert document["stage2"][0]["samples"][0]["completion_tokens"] == (
        6 if "no_usage" in replicate else 48
    )


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
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
    ],
)
def test_a_defect_makes_the_candidate_infeasible_with_its_reason(
    home: Home, behaviour: dict[str, Any], reason: str
) -> None:
    home.provider({Y: behaviour})
    document = home.tune(Y)
    assert document["exit_reason"] == "no_feasible"
    assert reason in document["infeasible"][0]["reason"]
    assert home.sql("SELECT notes FROM tune_trials") == [(document["infeasible"][0]["reason"],)]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"lists": []}, "does not list the model"),
        ({"lists": ["another/model"]}, "does not list the model"),
        ({"models_status": 503}, "HTTP 503"),
        ({"never_listens": True}, "nothing listens"),
    ],
)
def test_a_server_that_never_gets_ready_is_infeasible(
    home: Home, behaviour: dict[str, Any], reason: str
) -> None:
    home.settings("[provider]\nready_timeout_s = 2.0\n")
    home.provider({Y: behaviour})
    document = home.tune(Y)
    assert "not ready within 2 s" in document["infeasible"][0]["reason"]
    assert reason in document["infeasible"][0]["reason"]


def test_a_request_is_abandoned_as_soon_as_the_gate_is_missed(home: Home) -> None:
    home.provider({Y: {"replicates": [{"ttft_ms": 60_000, "total_ms": 60_000}]}})
    document = home.tune(Y, gate_ttft_ms=200, stage1_replicates=3)
    assert document["infeasible"][0]["reason"] == "no token within the gate of 200 ms"
    assert len([entry for entry in home.calls("request") if entry["request"] == "replicate"]) == 1


@pytest.mark.parametrize(("rate", "overhead"), [(2.6, 0), (4.0, 34), (5.3, 12), (1.1, 8)])
def test_prompts_have_the_right_length_and_are_never_the_same(
    home: Home, rate: float, overhead: int
) -> None:
    home.provider({Y: {"characters_per_token": rate, "overhead": overhead}})
    document = home.tune(Y, target_context=2000)
    target = 2000 - 48
    lengths = [sample["prompt_tokens"] for sample in document["stage2"][0]["samples"]]
    lengths += [row[0] for row in home.sql("SELECT measured_prompt_tokens FROM tune_trials")]
    assert all(0.98 * target <= length <= target for length in lengths), lengths
    heads = [entry["head"] for entry in home.calls("request") if entry["request"] == "replicate"]
    assert len(set(heads)) == len(heads)


def test_a_server_whose_usage_is_constant_gets_one_request_a_replicate(home: Home) -> None:
    home.provider({Y: {"replicates": [{"usage": {"prompt_tokens": 100}}]}})
    home.tune(Y)
    asked = [entry["request"] for entry in home.calls("request")]
    assert asked == ["warm-up", "replicate", "warm-up", "replicate", "replicate", "replicate"]
