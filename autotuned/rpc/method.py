"""One method of the control socket: its name, what it takes, what it gives, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

if TYPE_CHECKING:
    from autotuned.rpc.connection import Connection

Handler = Callable[["Connection", dict[str, Any]], Awaitable[Any]]


class Params(BaseModel):
    """Parameters by name; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True, slots=True)
class Method:
    """`params` validates unless the handler does so itself (`start`); `result` is a JSON Schema or a model."""

    name: str
    summary: str
    handler: Handler
    params: type[BaseModel] = Params
    result: type[BaseModel] | Mapping[str, Any] | None = None
    errors: tuple[int, ...] = ()
    validates_itself: bool = False
    acts: bool = False
    """What it has begun it carries through, whether or not the client is still there."""


def either(*documents: type[BaseModel]) -> Mapping[str, Any]:
    """The JSON Schema of an answer that is one of these."""
    _, shared = models_json_schema([(document, "serialization") for document in documents])
    choices = [{"$ref": f"#/$defs/{document.__name__}"} for document in documents]
    return {"anyOf": choices, "$defs": shared["$defs"]}
