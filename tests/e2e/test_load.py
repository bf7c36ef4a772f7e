"""Several requests at once, and what is calibrated of the chosen model, seen from outside."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import any_server
from tests.support.documents import stored
from tests.support.home import Home, RpcError, Y, kill, poll

SHARES = {"prefill_tps": 80_000, "decode_tps": 4000, "most_slots": 6, "most_context": 12_000}


def test_both_calibrations_go_to_where_the_memory_is_full(home: Home) -> None:
    home.provider({Y: {"shares": SHARES}})
    document = home.tune(
        Y,
        stage2_replicates=1,
        calibrate_context=True,
        calibrate_concurrency=True,
        context_ceiling=30_000,
        concurrency_ceiling=8,
        gate_ttft_ms=20_000,
    )
    found = document["calibration"]
    context = found["context"]
    assert (context["answer"], context["bound"]) == (7000, 7000), context["points"]
    assert found["concurrency"]["largest"] == 6
    asked = [point["concurrency"] for point in found["concurrency"]["points"]]
    assert asked[:3] == [1, 2, 4]
    assert all(later <= 2 * max(asked[:at]) for at, later in enumerate(asked) if at)
    knobs = document["recommendation"]["knobs"]
    assert knobs["max_context_override"] == 7000
    assert knobs["max_concurrency_override"] == found["concurrency"]["recommended"]
    assert "partial" not in document["recommendation"]
    best = home.rpc("status")["run"]["best"]
    assert best.items() <= document["recommendation"].items()
    rows = home.sql(
        "SELECT target_context, max_context_cap, max_batch, concurrency, fits FROM tune_trials WHERE stage = 3"
    )
    assert len(rows) == len(found["context"]["points"]) + len(asked)
    assert {row[0] for row in rows[-len(asked) :]} == {7000}
    starts = [call["knobs"] for call in home.calls("started")]
    assert starts.count("unset/1/7000") == 3  # for all contexts, for the answer, for one at a time
    waves = home.sql(
        "SELECT t.concurrency, s.wave, s.stream FROM samples s JOIN tune_trials t ON t.id = s.trial_id "
        "WHERE t.concurrency = 2"
    )
    assert waves == [(2, 1, 1), (2, 1, 2)]
    heads = [call["head"] for call in home.calls("request") if call["request"] == "replicate"]
    assert len(set(heads)) == len(heads)
    useful, largest = found["concurrency"]["recommended"], found["concurrency"]["largest"]
    assert f"serves {useful} at once at 7,000 tokens (" in home.ctl("show").stdout
    metrics = home.ctl("metrics").stdout
    assert f"autotuned_recommended_concurrency {useful}" in metrics
    assert "autotuned_useful_context_tokens 7000" in metrics
    assert f"at most {largest} pass" in home.rpc("report")["html"]
    assert len(home.processes()) == 1  # the agent alone
    points = home.sql("SELECT fields_json FROM events WHERE type = 'trial' ORDER BY seq")
    *_, last = [json.loads(fields) for (fields,) in points if '"calibrates"' in fields]
    assert last["calibration"]["passes"] == largest


DESCRIBED = """
[provider]
kind = "mine"
binary = "{program}"

[servers.mine]
command = ["mine", "--model", "{{source}}", "--alias", "{{model}}", "--port", "{{port}}"]
version = ["mine", "--version"]
slots_at_once = {at_once}

[servers.mine.knobs.max_batch]
flag = ["--slots", "{{value}}"]
{limit}
"""


def described(home: Home, at_once: str, limit: str, **changed: str) -> None:
    """A server of the home's own settings, which has slots; words of its text may be changed."""
    program, text = home.bin / "mine", Path(any_server.__file__).read_text(encoding="utf-8")
    for word, other in changed.items():
        text = text.replace(word, other)
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    home.settings(DESCRIBED.format(program=program, at_once=at_once, limit=limit))
    home.cache(Y)


@pytest.mark.parametrize(
    ("at_once", "limit", "started"),
    [
        ("true", "min = 1", ["8"]),
        ("true", "max = 5", ["5"]),
        ("false", "max = 5", ["1", "2", "4", "5", "3"]),
    ],
)
def test_a_server_is_started_once_where_its_slots_can_be_had_at_once(
    at_once: str, limit: str, started: list[str], home: Home
) -> None:
    described(home, at_once, limit)
    fields = {"stage2_replicates": 1, "calibrate_concurrency": True, "concurrency_ceiling": 8}
    document = home.tune(Y, max_batch_axis=[1], kv_bits_axis=[None], **fields)
    found = document["calibration"]["concurrency"]
    assert found["largest"] == min(8, int(started[0]) if at_once == "true" else 5), found
    events = home.sql(
        "SELECT fields_json FROM events WHERE type = 'provider.starting' ORDER BY seq"
    )
    argv = [
        event["argv"] for event in map(json.loads, itertools.chain(*events)) if event["stage"] == 3
    ]
    slots = [words[words.index("--slots") + 1] for words in argv]
    assert slots[: len(started)] == started[: len(slots)]
    assert len(slots) == (1 if at_once == "true" else len(found["points"]))


def test_every_cell_is_judged_by_as_many_requests_as_were_asked_for(home: Home) -> None:
    home.provider({Y: {"shares": {"prefill_tps": 80_000, "decode_tps": 4000}}})
    document = home.tune(Y, concurrency=3, max_batch_axis=[4], stage2_replicates=2)
    assert document["inputs"]["concurrency"] == 3
    [cell] = document["stage2"]
    places = [(sample["wave"], sample["stream"]) for sample in cell["samples"]]
    assert places == list(itertools.product((1, 2), (1, 2, 3)))
    assert 0 < cell["fairness"] <= 1
    assert cell["itl_p50_ms"] <= cell["itl_p95_ms"]
    assert document["recommendation"]["replicates"] == 2
    [streams] = {sample["completion_tokens"] for sample in cell["samples"]}
    whole_ms = max(s["sent_ms"] + s["total_ms"] for s in cell["samples"] if s["wave"] == 1)
    assert cell["tps_median"] >= 0.5 * 3 * streams / whole_ms * 1000


def test_noise_is_measured_under_the_load_of_the_run_that_it_is_about(home: Home) -> None:
    home.provider({Y: {"shares": {"prefill_tps": 80_000, "decode_tps": 4000}}})
    home.tune(Y, concurrency=2, stage2_replicates=1)
    run_id = home.rpc("noise", pairs=1, idle_s=0, port=home.port)["run_id"]
    assert not home.rpc("wait", run_id=run_id, timeout_s=20).get("timed_out")
    rows = home.sql("SELECT concurrency FROM tune_trials WHERE run_id = ?", run_id)
    assert set(rows) == {(2,)}


def test_a_load_that_cannot_be_is_refused_before_anything_is_started(home: Home) -> None:
    home.provider({Y: {}})
    with pytest.raises(RpcError, match=r"concurrency.*257"):
        home.tune(Y, concurrency=257)
    with pytest.raises(RpcError, match=r"ttft_ceiling_ms.*70000.*gate"):
        home.tune(Y, ttft_ceiling_ms=70_000)
    assert home.starts() == []


def test_a_run_that_asks_for_none_of_it_is_written_as_by_the_first_version(home: Home) -> None:
    home.provider({Y: {}})
    document, first = home.tune(Y), stored("v1-ok")
    assert document["inputs"].keys() == first["inputs"].keys()
    assert document["recommendation"].keys() >= first["recommendation"].keys()
    assert "calibration" not in document
    load = {"itl_p50_ms", "itl_p95_ms", "fairness", "dispatch_skew_ms"}
    for cell in document["stage2"]:
        assert cell.keys() >= first["stage2"][0].keys()
        assert not load & cell.keys()
        for sample in cell["samples"]:
            assert sample.keys() == first["stage2"][0]["samples"][0].keys()
    [streams] = home.sql("SELECT count(wave), count(stream), count(sent_ms) FROM samples")
    assert streams == (0, 0, 0)
    assert home.sql("SELECT DISTINCT concurrency FROM tune_trials") == [(None,)]
    assert home.sql("SELECT DISTINCT stage FROM tune_trials ORDER BY stage") == [(1,), (2,)]
    answered = home.rpc("trials", run_id=document["run_id"])["trials"]
    assert not any({"concurrency", "calibrates", *load} & trial.keys() for trial in answered)
    shapes = [
        [word for word in call["argv"] if word.startswith("--")] for call in home.calls("started")
    ]
    assert shapes == [
        ["--model", "--no-join", "--port", "--config", *cell]
        for cell in ([], ["--max-batch", "--max-context"])
    ]


@pytest.mark.slow
def test_a_cancelled_calibration_leaves_the_best_cell_and_goes_on_where_it_was(home: Home) -> None:
    slow = {"prefill_tps": 4000, "decode_tps": 4000}
    home.provider({Y: {"shares": slow}})
    asked = {"calibrate_context": True, "context_ceiling": 8000, "stage2_replicates": 1}
    run_id = home.begin(Y, **asked)
    poll(lambda: home.sql("SELECT 1 FROM tune_trials WHERE stage = 3"))
    home.rpc("cancel")
    home.rpc("wait", run_id=run_id)
    document = home.rpc("result", run_id=run_id)
    assert document["exit_reason"] == "interrupted"
    assert document["recommendation"]["partial"] is True
    assert document["recommendation"]["knobs"]["max_context_override"] == 2000
    assert document["calibration"]["context"]["answer"] is None
    before = len(document["calibration"]["context"]["points"])
    assert before >= 1
    assert home.ctl("start", "--resume", run_id, "--wait").returncode == 0
    document = home.rpc("result", run_id=run_id)
    assert document["calibration"]["context"]["answer"] == 8000
    assert document["recommendation"]["knobs"]["max_context_override"] == 8000
    kept = [point["context"] for point in document["calibration"]["context"]["points"]]
    assert kept[:before] == [2000, 4000, 8000][:before]


CALIBRATED = {
    "stage2_replicates": 1,
    "calibrate_context": True,
    "calibrate_concurrency": True,
    "context_ceiling": 8000,
    "concurrency_ceiling": 4,
    "gate_ttft_ms": 20_000,
}


def points(document: dict[str, Any]) -> list[int]:
    """What was measured, in order."""
    found = document["calibration"]
    asked = [(found["context"], "context"), (found["concurrency"], "concurrency")]
    return [point[axis] for part, axis in asked for point in part["points"]]


@pytest.mark.slow
def test_a_kill_at_any_point_of_a_calibration_loses_none_of_its_answers(home: Home) -> None:
    home.provider({Y: {"shares": {"prefill_tps": 20_000, "decode_tps": 2000}}})
    whole = home.tune(Y, **CALIBRATED)
    run_id = home.begin(Y, **CALIBRATED)
    kills = 0
    while home.rpc("result", run_id=run_id)["state"] == "running":
        done = measured(home, run_id)
        poll(lambda done=done: measured(home, run_id) > done or ended(home, run_id))  # type: ignore[misc]
        if ended(home, run_id):
            break
        assert home.daemon is not None
        kill(home.daemon)
        kills += 1
        poll(lambda: not home.processes(), "the candidate is gone")
        home.start_daemon()
        if home.rpc("result", run_id=run_id)["exit_reason"] == "ok":
            break  # its end was stored between the last look and the kill
        assert home.rpc("start", resume=run_id)["run_id"] == run_id
    document = home.rpc("result", run_id=run_id)
    # Two points can be stored between two looks of a busy machine.
    assert kills >= len(points(whole)) // 2
    assert points(document) == points(whole)
    assert document["recommendation"]["knobs"] == whole["recommendation"]["knobs"]
    assert "partial" not in document["recommendation"]


@pytest.mark.slow
def test_a_budget_that_runs_out_in_a_calibration_leaves_the_best_cell_as_a_partial_answer(
    home: Home,
) -> None:
    home.provider({Y: {"shares": {"prefill_tps": 4000, "decode_tps": 1000}}})
    ends = []
    run_id = home.begin(Y, **CALIBRATED, max_duration=4.0)
    while True:
        poll(lambda: ended(home, run_id), "its end")
        document = home.rpc("result", run_id=run_id)
        ends.append(document["exit_reason"])
        answer = document["recommendation"]
        if document["exit_reason"] == "ok":
            break
        if document["stage2"] and document["stage2"][0]["kept"]:
            assert document["exit_reason"] == "budget_exhausted_with_partial_recommendation"
            assert answer["partial"] is True
            assert answer["knobs"] == document["stage2"][0]["knobs"]
        budget = 4.0 if len(ends) < 5 else 300.0
        assert home.rpc("start", resume=run_id, max_duration=budget)["run_id"] == run_id
    assert len(ends) > 1
    assert "partial" not in answer
    assert answer["knobs"]["max_context_override"] == document["calibration"]["context"]["answer"]


def measured(home: Home, run_id: str) -> int:
    """How many points are in the store."""
    rows = home.sql("SELECT count(*) FROM tune_trials WHERE run_id = ? AND stage = 3", run_id)
    return int(rows[0][0])


def ended(home: Home, run_id: str) -> bool:
    return bool(home.rpc("result", run_id=run_id)["state"] == "finished")


def test_a_server_that_dies_at_a_later_point_is_told_of_with_its_own_last_words(home: Home) -> None:
    dies = (
        "def do_POST(self) -> None:\n        import os, threading\n"
        "        if threading.active_count() > 3:\n"
        "            print('error: no memory for a slot', flush=True)\n            os._exit(1)"
    )
    described(home, "true", "min = 1", **{"def do_POST(self) -> None:": dies})
    fields = {"stage2_replicates": 1, "calibrate_concurrency": True, "concurrency_ceiling": 4}
    document = home.tune(Y, max_batch_axis=[1], kv_bits_axis=[None], **fields)
    points = document["calibration"]["concurrency"]["points"]
    assert [point["passes"] for point in points[:3]] == [True, True, False]
    assert points[2]["reason"].endswith("with code 1: error: no memory for a slot")
