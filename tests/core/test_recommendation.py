"""The public document's parts: hash, recommendation, alternates, reasons in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuned.core import result as public
from autotuned.core.model import Event, Failure, FailureKind, MachineFacts, Replicate
from autotuned.core.pipeline import Finish
from autotuned.documents.result import ExitReason
from autotuned.shared.knobs import Knobs
from tests.core.worlds import GOOD, MISSED, cell, planned, probe

VECTORS = json.loads(Path(__file__).with_name("recipe_hash.json").read_text(encoding="utf-8"))
FACTS = MachineFacts(16, "Apple M2", "macOS 15.1", 16 * 2**30)


def hashed(recipe: dict[str, Any]) -> str:
    knobs = recipe["knobs"]
    return public.recipe_hash(
        replace(FACTS, ram_gb=recipe["ram_gb"], chip=recipe["chip"]),
        recipe["binary_version"],
        recipe["candidate_models"],
        recipe["target_context"],
        recipe["model"],
        Knobs(knobs["kv_bits"], knobs["max_concurrency_override"], knobs["max_context_override"]),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_the_recipe_hash_is_that_of_the_vectors(vector: dict[str, Any]) -> None:
    digest = hashed(vector["input"])
    assert digest == vector["hash"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)


def test_every_part_of_the_recipe_changes_its_hash() -> None:
    recipe = VECTORS[0]["input"]
    others = [
        {**recipe, "binary_version": "9"},
        {**recipe, "chip": "Apple M9"},
        {**recipe, "ram_gb": 99},
        {**recipe, "target_context": 99_000},
        {**recipe, "model": "m"},
        {**recipe, "candidate_models": recipe["candidate_models"][::-1]},
        {**recipe, "knobs": {**recipe["knobs"], "kv_bits": None}},
        {**recipe, "knobs": {**recipe["knobs"], "max_concurrency_override": 9}},
        {**recipe, "knobs": {**recipe["knobs"], "max_context_override": 99_000}},
    ]
    assert len({hashed(recipe), *map(hashed, others)}) == 10


def test_the_recommendation_is_the_best_cell_under_public_names() -> None:
    plan = planned("x-7B")
    best = replace(cell(plan, 1, 2, 12.5, 900.0), kept=True, serve_argv=("serve", "it"))
    found = public.recommend("r", plan, Finish(ExitReason.OK, plan.candidates[0], best))
    assert found is not None
    assert found == {
        "model": "x-7B",
        "target_context": 2000,
        "knobs": {"kv_bits": 4, "max_concurrency_override": 1, "max_context_override": 2000},
        "tps_median": 12.5,
        "ttft_p95_ms": 900.0,
        "replicates": 1,
        "serve_command": "serve it",
    }


def test_a_partial_recommendation_says_so() -> None:
    plan = planned("x-7B")
    finish = Finish(ExitReason.BUDGET_PARTIAL, plan.candidates[0], cell(plan, 1, 0), partial=True)
    found = public.recommend("r", plan, finish)
    assert found is not None
    assert found["partial"] is True


def test_without_a_kept_cell_there_is_no_recommendation_and_no_alternate() -> None:
    plan = planned("x-7B", "y-1B")
    finish = Finish(ExitReason.NO_FEASIBLE, plan.candidates[0])
    assert public.recommend("r", plan, finish) is None
    assert public.alternates_of(plan, [probe(plan, 1)], finish) == []


def test_alternates_are_smaller_candidates_that_were_not_probed() -> None:
    plan = planned("x-32B", "y-7B", "z-1B")
    finish = Finish(ExitReason.OK, plan.candidates[1], cell(plan, 2, 0))
    history = [probe(plan, 1, MISSED), probe(plan, 2), cell(plan, 2, 0)]
    assert public.alternates_of(plan, history, finish) == ["z-1B"]
    assert [(e["model"], e["rank"]) for e in public.infeasible(history)] == [("x-32B", 1)]


def test_a_command_is_quoted_for_a_shell() -> None:
    plan = planned("x-7B")
    best = replace(cell(plan, 1, 0), serve_argv=("/a b/serve", "--model", "x'y"))
    found = public.recommend("r", plan, Finish(ExitReason.OK, plan.candidates[0], best))
    assert found is not None
    assert found["serve_command"] == "'/a b/serve' --model 'x'\"'\"'y'"
    assert "serve_note" not in found
    alone = replace(best, serve_argv=(*best.serve_argv, "--no-join"))
    noted = public.recommend("r", plan, Finish(ExitReason.OK, plan.candidates[0], alone))
    assert noted is not None
    assert noted["serve_note"] == public.NO_JOIN_NOTE


def test_nobody_is_told_to_call_a_file_of_ours() -> None:
    plan = planned("x-7B")
    argv = (
        "/bin/python",
        "-P",
        "/x/site-packages/autotuned/providers/llama_launcher.py",
        "-m",
        "f",
    )
    best = replace(cell(plan, 1, 0), serve_argv=argv)
    found = public.recommend("r-1", plan, Finish(ExitReason.OK, plan.candidates[0], best))
    assert found is not None
    assert found["serve_command"] == "autotunectl serve r-1"
    assert public.served(found, [probe(plan, 1), best]) == argv
    other = {**found, "serve_command": "llama-server -m 'a b'"}
    assert public.served(other, []) == ("llama-server", "-m", "a b")  # type: ignore[arg-type]


def said(plan: Any, history: Any, finish: Finish) -> str:
    found = public.explain(plan, history, finish)
    assert found is not None
    assert found["code"] == finish.exit_reason
    return found["message"]


def test_the_smallest_candidates_reason_leads_and_the_larger_follow() -> None:
    plan = planned("a-32B", "b-1B", "c", "d-7B", target_context=3000)
    history = [
        probe(plan, rank, Failure(FailureKind.GATE, f"reason {rank}")) for rank in (1, 2, 3, 4)
    ]
    found = public.explain(plan, history, Finish(ExitReason.NO_FEASIBLE))
    assert found is not None
    assert found["detail"] == [
        "b-1B: reason 2",
        "c: reason 3",
        "d-7B: reason 4",
        "a-32B: reason 1",
    ]
    assert found["message"].startswith("b-1B: reason 2")
    for word in ("3000 tokens", "--target-context", "--candidate-models"):
        assert word in found["message"]


def test_when_no_cell_passes_each_cells_reason_is_told() -> None:
    plan = planned("a-7B", kv_bits_axis=[None, 8], max_batch_axis=[1])
    history = [probe(plan, 1), cell(plan, 1, 0, failure=MISSED), cell(plan, 1, 1, failure=MISSED)]
    found = public.explain(plan, history, Finish(ExitReason.NO_FEASIBLE, plan.candidates[0]))
    assert found is not None
    assert found["detail"] == [
        f"kv_bits {bits}, max_batch 1, max_context 2000: {MISSED.reason}" for bits in ("unset", 8)
    ]
    assert "no setting of a-7B passed" in found["message"]
    unnamed = replace(history[1], knobs=None)  # as a prototype's database may hold it
    finish = Finish(ExitReason.NO_FEASIBLE, plan.candidates[0])
    assert said(plan, [unnamed], finish).startswith(f"a-7B: {MISSED.reason}")


def test_every_other_end_is_explained_with_its_remedy() -> None:
    plan = planned("a-7B", max_duration=60)
    chosen = plan.candidates[0]
    history = [probe(plan, 1), cell(plan, 1, 0)]
    assert "--max-duration" in said(plan, [], Finish(ExitReason.BUDGET_NONE))
    partial = Finish(ExitReason.BUDGET_PARTIAL, chosen, history[1], partial=True)
    assert "60 s ran out in cell 1 of 6" in said(plan, history, partial)
    assert said(plan, [], Finish(ExitReason.INTERRUPTED)) == "the run was cancelled"
    cut = Finish(ExitReason.INTERRUPTED, chosen, history[1], partial=True)
    assert "best cell so far" in said(plan, history, cut)
    damaged = [probe(plan, 1, Failure(FailureKind.INTEGRITY, "pre-warm integrity: x"))]
    assert said(plan, damaged, Finish(ExitReason.INTEGRITY)).startswith("a-7B: pre-warm integrity")
    assert "bug" in said(plan, history, Finish(ExitReason.INTERNAL_ERROR))
    assert public.explain(plan, history, Finish(ExitReason.OK, chosen, history[1])) is None


def test_reasons_that_are_lacking_are_said_to_be_lacking() -> None:
    plan = planned("a-7B")
    assert "no candidate was tried" in said(plan, [], Finish(ExitReason.NO_FEASIBLE))
    finish = Finish(ExitReason.NO_FEASIBLE, plan.candidates[0])
    assert "no cell was measured" in said(plan, [probe(plan, 1)], finish)


def test_cells_have_all_their_samples_and_means() -> None:
    plan = planned("a-7B")
    samples = (replace(GOOD, decode_tps=10.0), replace(GOOD, decode_tps=20.0), Replicate(error="x"))
    history = [probe(plan, 1), replace(cell(plan, 1, 1), replicates=samples, load_ms=5.0)]
    [document] = public.cells(history)
    assert (document["decode_tps"], document["prefill_tps"], document["load_ms"]) == (
        15.0,
        None,
        5.0,
    )
    assert [sample["error"] for sample in document["samples"]] == [None, None, "x"]
    assert history[1].n_err == 1


def test_times_are_added_up() -> None:
    plan = planned("a-7B")
    first = replace(probe(plan, 1), load_ms=1000.0)
    second = replace(cell(plan, 1, 0), replicates=(replace(GOOD, tps=9.0), replace(GOOD, tps=11.0)))
    assert public.timings([first, second], None) == {"load_s": 1.0, "requests_s": 14.4}
    assert public.timings([], 2.00049) == {"load_s": 0, "requests_s": 0, "total_s": 2.0}


def test_the_schema_of_the_result_knows_the_hash_by_its_form() -> None:
    schema = public.json_schema()
    assert schema["properties"]["recipe_hash"]["anyOf"][0]["pattern"] == "^sha256:[0-9a-f]{64}$"


def test_an_event_is_one_flat_object_whose_own_names_win() -> None:
    event = Event(7, "2026-01-01T00:00:00.000Z", "r", "trial", {"fits": True, "seq": "no"})
    assert event.document() == {
        "seq": 7,
        "ts": "2026-01-01T00:00:00.000Z",
        "run_id": "r",
        "type": "trial",
        "fits": True,
    }


def test_knobs_and_streams_have_their_public_names() -> None:
    knobs = Knobs(8, 2, 4000)
    assert public.cell_knobs(knobs) == {"kv_bits": 8, "max_batch": 2, "max_context": 4000}
    plain = public.sample_document(GOOD)
    assert "wave" not in plain
    of_a_wave = public.sample_document(replace(GOOD, wave=1, stream=2, sent_ms=0.5))
    assert (of_a_wave["wave"], of_a_wave["stream"], of_a_wave["sent_ms"]) == (1, 2, 0.5)


def test_where_no_weights_could_be_had_a_smaller_context_is_not_the_remedy() -> None:
    plan = planned("acme/a-7B", "acme/b-3B")
    away = Failure(FailureKind.TRANSIENT, "no network")
    history = [probe(plan, 1, away), probe(plan, 2, away)]
    told = public.explain(plan, history, Finish(ExitReason.NO_FEASIBLE))
    assert told is not None
    assert "no candidate is feasible at 2000 tokens: check the network" in told["message"]
