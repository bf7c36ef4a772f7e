"""The OpenRPC document, generated from the same table that dispatches and the same models that validate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from autotuned import __version__
from autotuned.documents import events
from autotuned.rpc.connection import Connection
from autotuned.rpc.method import Method, Params
from autotuned.shared import failures, wire


def with_itself(methods: Sequence[Method]) -> list[Method]:
    """`methods`, and `rpc.discover` that describes them all."""

    made: dict[str, object] = {}  # once: it takes a moment, and all who ask may share it

    async def described(_: Connection, __: Params) -> dict[str, object]:
        if not made:
            made.update(await asyncio.to_thread(document, every))
        return made

    summary = "this interface as an OpenRPC document"
    every = [*methods, Method("rpc.discover", summary, described, result={"type": "object"})]
    return every


def document(methods: Sequence[Method]) -> dict[str, Any]:
    """The whole interface, machine-readable (OpenRPC 1.3)."""
    schemas: dict[str, Any] = {}
    described = [_method(method, schemas) for method in methods]
    for shape in (events.EventDocument, *events.EVENTS):
        schemas[shape.__name__] = _answered(shape, schemas)
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "autotuned",
            "version": __version__,
            "description": f"protocol {wire.PROTOCOL}",
        },
        "methods": described,
        "components": {"schemas": schemas},
        "x-events": [{"$ref": f"#/components/schemas/{shape.__name__}"} for shape in events.EVENTS],
    }


def _method(method: Method, schemas: dict[str, Any]) -> dict[str, Any]:
    params = _hoisted(method.params.model_json_schema(), schemas)
    required = params.get("required", [])
    return {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": [
            {"name": name, "required": name in required, "schema": entry}
            for name, entry in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": _answered(method.answer, schemas)},
        "errors": [
            {"code": code, "message": _meaning(code)}
            for code in (wire.INVALID_PARAMS, *method.errors)
        ],
        "examples": _examples(method.name),
    }


def _meaning(code: int) -> str:
    """What an error means and what its data holds, on one line."""
    row = failures.FAILURES[failures.kind_of(code, {})]
    return f"{row.sentence}; data {row.data}" if row.data else row.sentence


def _examples(name: str) -> list[dict[str, Any]]:
    """A call and the answer that a real agent gave to it, where one was kept."""
    kept = json.loads(
        resources.files(__package__ or "").joinpath("examples.json").read_text("utf-8")
    )
    if name not in kept:
        return []
    params = [{"name": key, "value": value} for key, value in kept[name]["params"].items()]
    result = {"name": "result", "value": kept[name]["result"]}
    return [{"name": name, "params": params, "result": result}]


def _answered(document: object, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer."""
    if not isinstance(document, Mapping):
        adapter: TypeAdapter[object] = TypeAdapter(document)  # type: ignore[arg-type]  # a type or a union of them
        document = adapter.json_schema(mode="serialization")
    return _hoisted(_opened(document), schemas)


def _opened(part: Any) -> Any:
    """A schema without what forbids fields that a later agent adds."""
    if isinstance(part, Mapping):
        return {
            key: _opened(value)
            for key, value in part.items()
            if (key, value) != ("additionalProperties", False)
        }
    return [_opened(value) for value in part] if isinstance(part, list) else part


def _hoisted(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """`schema` with what it defines moved to the document's own components, where its references then point."""
    text = json.dumps(schema).replace('"#/$defs/', '"#/components/schemas/')
    pointed: dict[str, Any] = json.loads(text)
    for name, moved in pointed.pop("$defs", {}).items():
        if schemas.setdefault(name, moved) != moved:
            message = f"two models are called {name}"
            raise ValueError(message)
    return pointed
