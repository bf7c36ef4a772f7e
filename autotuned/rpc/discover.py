"""The OpenRPC document, generated from the same table that dispatches and the same models that validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from autotuned import __version__, wire
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method

ERRORS = {
    wire.INVALID_PARAMS: "a parameter is not usable; data names field, value and rule",
    wire.BUSY: "another run is active; data names it",
    wire.PROVIDER_CONFLICT: "a live provider or a stranger is in the way; data lists the conflicts",
    wire.RESTORE_OUTSTANDING: "a live provider is not back yet; data has the lease",
    wire.NOT_FOUND: "no such run, subscription or backup",
    wire.APPLY_REFUSED: "the configuration is left as it is; data says why in a word",
    wire.SHUTTING_DOWN: "the agent is stopping",
}


def with_itself(methods: Sequence[Method]) -> list[Method]:
    """`methods`, and `rpc.discover` that describes them all."""

    async def described(_: Connection, __: Mapping[str, Any]) -> dict[str, Any]:
        return document(every)

    every = [*methods, Method("rpc.discover", "this interface as an OpenRPC document", described)]
    return every


def document(methods: Sequence[Method]) -> dict[str, Any]:
    """The whole interface, machine-readable (OpenRPC 1.3)."""
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "autotuned",
            "version": __version__,
            "description": f"protocol {wire.PROTOCOL}",
        },
        "methods": [_method(method) for method in methods],
    }


def _method(method: Method) -> dict[str, Any]:
    schema = method.params.model_json_schema()
    required = schema.get("required", [])
    shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in required, "schema": {**entry, **shared}}
            for name, entry in schema.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": _result(method)},
        "errors": [
            {"code": code, "message": ERRORS[code]}
            for code in (wire.INVALID_PARAMS, *method.errors)
        ],
    }


def _result(method: Method) -> dict[str, Any]:
    if method.result is None:
        return {"type": "object"}
    if isinstance(method.result, type) and issubclass(method.result, BaseModel):
        return method.result.model_json_schema(mode="serialization")
    return dict(method.result)
