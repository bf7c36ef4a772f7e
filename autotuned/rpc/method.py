"""One method of the control socket: its name, what it takes, what it gives, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

if TYPE_CHECKING:
    from autotuned.rpc.connection import Connection

Handler = Callable[["Connection", dict[str, Any]], Awaitable[object]]


class Params(BaseModel):
    """Parameters by name; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Method:
    """`params` validates unless the handler does so itself (`start`); `result` is one document, or any of several,
    or a JSON Schema."""

    name: str
    summary: str
    handler: Handler
    params: type[BaseModel] = Params
    result: object = None
    errors: tuple[int, ...] = ()
    validates_itself: bool = False
    acts: bool = False
    """What it has begun it carries through, whether or not the client is still there."""


def schema_of(document: object) -> dict[str, Any]:
    """The JSON Schema of an answer."""
    if isinstance(document, Mapping):
        return dict(document)
    if document is None:
        return {"type": "object"}
    adapter: TypeAdapter[Any] = TypeAdapter(document)  # type: ignore[arg-type]  # a type or a union of them
    return adapter.json_schema(mode="serialization")
