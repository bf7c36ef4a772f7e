"""The published interface holds: every method of the real agent, called as its own schema says, keeps its word."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import pytest

from autotuned.shared import wire
from tests.support.home import Home, RpcError, X, Y, poll

pytestmark = pytest.mark.slow  # every method of a real agent, many times

SEEDS = range(4)
LAST = ("shutdown",)
QUICK = {"timeout_s": 0, "dry_run": True}
"""Values that keep a call short and without effects that outlive the test."""
ODD: tuple[Any, ...] = (None, True, -1, 0, 1.5, "", "x", [], {}, [None], {"x": 1})


def valid(schema: dict[str, Any], source: random.Random, schemas: dict[str, Any]) -> Any:
    """A value that `schema` allows; `schemas` are the document's own."""
    if "$ref" in schema:
        return valid(schemas[schema["$ref"].rsplit("/", 1)[-1]], source, schemas)
    if "default" in schema and source.random() < 0.3:
        return schema["default"]
    if "anyOf" in schema:
        return valid(source.choice(schema["anyOf"]), source, schemas)
    if "enum" in schema:
        return source.choice(schema["enum"])
    if "const" in schema:
        return schema["const"]
    return _of_type(schema, source, schemas)


def _of_type(schema: dict[str, Any], source: random.Random, schemas: dict[str, Any]) -> Any:
    low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
    match schema.get("type"):
        case "integer":
            return source.randint(int(low), int(high))
        case "number":
            return source.uniform(schema.get("exclusiveMinimum", low), min(high, 0.9))
        case "boolean":
            return source.random() < 0.5
        case "string":
            return source.choice(["x", "20260101T000000Z-abcdef", "auto", "\u00e9"])
        case "array":
            inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
            return [valid(inner, source, schemas) for _ in range(source.randint(0, 2))]
        case "object":
            return {}
        case _:
            return None


def test_every_method_answers_as_its_schema_says(home: Home) -> None:
    home.environ["HF_HUB_OFFLINE"] = "1"
    home.provider({Y: {}})
    home.start_daemon()
    document = home.rpc("rpc.discover")
    methods = sorted(document["methods"], key=lambda method: method["name"] in LAST)
    assert {"version", "start", "status", "rpc.discover", *LAST} <= {m["name"] for m in methods}
    for method in methods:
        documented = {error["code"] for error in method["errors"]}
        known = {param["name"] for param in method["params"]}
        for seed in SEEDS if method["name"] not in LAST else ():
            source = random.Random(seed)
            params = {
                param["name"]: valid(param["schema"], source, document["components"]["schemas"])
                for param in method["params"]
                if param["required"] or source.random() < 0.5
            }
            params |= {name: value for name, value in QUICK.items() if name in known}
            check(home, method, params, documented, document["components"])
        for name in known - set(QUICK):
            odd = {name: random.Random(name).choice(ODD)}
            odd |= {key: value for key, value in QUICK.items() if key in known}
            check(home, method, odd, documented, document["components"])
        expected = {"no such parameter": 1}
        assert code_of(home, method["name"], expected) == wire.INVALID_PARAMS
    assert home.rpc("version")["pid"] == home.daemon.pid  # type: ignore[union-attr]


def test_the_answers_about_a_run_hold_while_it_goes_on_and_after(home: Home) -> None:
    home.provider({X: {"exit_code": 1}, Y: {"cells": {"8/1/2000": {"load_s": 60}}}})
    run_id = home.begin(X, Y, kv_bits_axis=[None, 8], stage2_replicates=1)
    document = home.rpc("rpc.discover")
    methods = {method["name"]: method for method in document["methods"]}
    poll(lambda: len(home.starts()) == 4)
    for name in ("status", "runs", "result", "wait"):
        hold(home, methods[name], document["components"])
    home.rpc("cancel")
    assert home.rpc("wait", run_id=run_id)["exit_reason"] == "interrupted"
    for name in ("status", "runs", "result", "wait"):
        hold(home, methods[name], document["components"])
    schema = closed({**methods["trials"]["result"]["schema"], "components": document["components"]})
    jsonschema.validate(home.rpc("trials", run_id=run_id), schema)


def hold(home: Home, method: dict[str, Any], components: dict[str, Any]) -> None:
    """The answer to a call without parameters has what its schema names, and nothing else."""
    params = {"timeout_s": 0} if method["name"] == "wait" else {}
    schema = closed({**method["result"]["schema"], "components": components})
    jsonschema.validate(home.rpc(method["name"], **params), schema)


def check(
    home: Home,
    method: dict[str, Any],
    params: dict[str, Any],
    documented: set[int],
    components: dict[str, Any],
) -> None:
    """A result that the schema allows, or an error that is documented."""
    code = None
    try:
        schema = closed({**method["result"]["schema"], "components": components})
        jsonschema.validate(home.rpc(method["name"], **params), schema)
    except RpcError as error:
        code = error.code
    assert code is None or code in documented, (method["name"], params, code)


def closed(part: Any) -> Any:
    """A schema that allows no field that it does not name: what this agent sends, it has described."""
    if isinstance(part, list):
        return [closed(value) for value in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    if isinstance(part.get("properties"), dict) and part.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


def code_of(home: Home, method: str, params: dict[str, Any]) -> int | None:
    try:
        home.rpc(method, **params)
    except RpcError as error:
        return error.code
    return None
