"""The published schema of the result document, against what we write now and have ever written."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter

from autotuned.core.result import json_schema
from autotuned.documents.result import ExitReason, ResultDocument
from tests.support.documents import names, stored
from tests.support.home import Home, RpcError, X, Y, Z, poll, whole_model

PUBLISHED = Path(__file__).parents[2] / "docs" / "result.schema.json"
SLOW_ANSWER = {"replicates": [{"ttft_ms": 60_000, "total_ms": 61_000}]}


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    content = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def test_the_published_schema_is_the_one_of_the_models() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema(), "run: make docs"


def test_one_document_of_every_ending_is_kept() -> None:
    endings = {(stored(name)["exit_reason"], stored(name)["state"]) for name in names()}
    assert endings == {
        *((reason, "finished") for reason in ExitReason),
        ("interrupted", "running"),
    }


@pytest.mark.parametrize("name", names())
def test_what_earlier_versions_wrote_stays_valid(
    schema: jsonschema.Draft202012Validator, name: str
) -> None:
    schema.validate(stored(name))
    TypeAdapter(ResultDocument).validate_python(stored(name))


DOCUMENTED: dict[str, tuple[type, ...]] = {
    "spec_version": (str,),
    "run_id": (str,),
    "started_at": (str,),
    "ended_at": (str,),
    "machine.ram_gb": (int,),
    "machine.chip": (str,),
    "machine.os_version": (str,),
    "machine.binary_version": (str,),
    "inputs.target_context": (int,),
    "inputs.candidate_models": (list,),
    "inputs.stage1_replicates": (int,),
    "inputs.stage2_replicates": (int,),
    "inputs.gate_ttft_ms": (int,),
    "inputs.tps_tie_epsilon": (int, float),
    "recommendation.model": (str,),
    "recommendation.target_context": (int,),
    "recommendation.knobs.kv_bits": (int, type(None)),
    "recommendation.knobs.max_concurrency_override": (int,),
    "recommendation.knobs.max_context_override": (int,),
    "recommendation.tps_median": (int, float),
    "recommendation.ttft_p95_ms": (int, float),
    "recommendation.replicates": (int,),
    "recommendation.serve_command": (str,),
    "alternates": (list,),
    "infeasible": (list,),
    "recipe_hash": (str,),
    "db_path": (str,),
    "exit_reason": (str,),
    "state": (str,),
    "trigger": (str,),
    "provider": (str,),
    "warnings": (list,),
    "timings": (dict,),
    "stage2": (list,),
    "noise": (dict,),
}


@pytest.mark.parametrize("path", DOCUMENTED)
def test_each_documented_field_is_required_and_has_its_type(
    schema: jsonschema.Draft202012Validator, path: str
) -> None:
    *way, last = path.split(".")

    def valid(change: Callable[[dict[str, Any]], object]) -> bool:
        document = stored("v1-ok")
        holder = document
        for name in way:
            holder = holder[name]
        change(holder)
        return bool(schema.is_valid(document))

    assert not valid(lambda holder: holder.pop(last))
    values: list[object] = [["a list"], {"an": "object"}, 0.5, "text"]
    for value in values:
        if not isinstance(value, DOCUMENTED[path]):
            assert not valid(lambda holder: holder.update({last: value})), value  # noqa: B023


@pytest.mark.parametrize(
    ("field", "value"),
    [("recipe_hash", "sha256:ABC"), ("started_at", "2026-01-01T00:00:00+01:00")],
)
def test_hashes_and_times_have_their_form(
    schema: jsonschema.Draft202012Validator, field: str, value: str
) -> None:
    assert not schema.is_valid({**stored("v1-ok"), field: value})


def test_a_missing_recommendation_is_null_and_nothing_else(
    schema: jsonschema.Draft202012Validator,
) -> None:
    nothing = stored("v1-no_feasible")
    wrong: list[object] = [{}, [], False, ""]
    assert not any(schema.is_valid({**nothing, "recommendation": value}) for value in wrong)
    partial = stored("v1-budget_exhausted_with_partial_recommendation")
    assert partial["recommendation"]["partial"] is True
    for value in (False, None):
        other = copy.deepcopy(partial)
        other["recommendation"]["partial"] = value
        assert not schema.is_valid(other)


def test_a_field_of_a_later_version_is_no_error(schema: jsonschema.Draft202012Validator) -> None:
    schema.validate({**stored("v1-ok"), "invented": 1})


def test_real_results_of_most_endings_validate(
    home: Home, schema: jsonschema.Draft202012Validator
) -> None:
    def refused(**fields: Any) -> dict[str, Any]:
        with pytest.raises(RpcError) as error:
            home.begin(Y, **fields)
        document: dict[str, Any] = home.rpc("result", run_id=error.value.data["run_id"])
        return document

    broken = "acme/broken-3B"
    home.provider({X: {"exit_code": 1}, Y: {}, Z: SLOW_ANSWER})
    home.cache(broken, files={**whole_model(), "model.safetensors": b"short"})
    documents = [
        home.tune(X, Y, Z, stage2_replicates=1, stage1_replicates=1),
        home.tune(X),
        home.tune(broken),
        refused(target_context=4000, max_context_axis=[2000]),
    ]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", home.port))
        stranger.listen()
        documents.append(refused())
    home.begin(Z)
    poll(lambda: any(call["request"] == "replicate" for call in home.calls("request")))
    running = home.rpc("result")
    home.rpc("cancel")
    home.rpc("wait", timeout_s=30)
    documents += [running, home.rpc("result")]
    for document in documents:
        schema.validate(document)
    assert [(document["exit_reason"], document["state"]) for document in documents] == [
        ("ok", "finished"),
        ("no_feasible", "finished"),
        ("pre_warm_integrity_failure", "finished"),
        ("config_error", "finished"),
        ("provider_conflict", "finished"),
        ("interrupted", "running"),
        ("interrupted", "finished"),
    ]


@pytest.mark.slow
def test_json_of_the_client_is_one_valid_document_and_nothing_else(
    home: Home, schema: jsonschema.Draft202012Validator
) -> None:
    home.provider({Y: {"cells": {"8/1/2000": {"load_s": 60}}}})
    home.start_daemon()
    flags = ["--kv-bits-axis", "unset,8", "--max-batch-axis", "1", "--json", "--wait"]
    flags.append("--candidate-models")
    for budget, code in (("4", 5), ("0.3", 4)):
        done = home.ctl("start", *flags, Y, "--port", str(home.port), "--max-duration", budget)
        assert done.returncode == code, done.stderr
        schema.validate(json.loads(done.stdout))
    done = home.ctl("start", *flags, "not-there/X", "--port", "0")
    assert done.returncode == 2
    schema.validate(json.loads(done.stdout))
