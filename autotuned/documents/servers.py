"""The serving programs that are described, one started once to see whether it works, and a recipe's command line."""

from __future__ import annotations

from typing import Literal

from autotuned.documents import Document
from autotuned.shared.knobs import Value


class KnobHelp(Document):
    """A setting of a server: what it does, and what may be asked for."""

    name: str
    help: str
    values: list[str] | None
    type: Literal["int", "float", "bool", "text"]
    min: float | None
    max: float | None
    default_axis: list[Value]
    lossy: bool


class ServerDocument(Document):
    """A server. `program` null: it is not installed; `version` null: it was not asked, or `problem` says why not.

    `source`: `shipped`, or `settings` for one of the operator's own.
    """

    name: str
    source: Literal["shipped", "settings"]
    program: list[str] | None
    version: str | None
    problem: str | None
    weights: Literal["safetensors", "gguf"]
    candidates: str | None
    knobs: list[KnobHelp]
    tried: str
    quirks: list[str]


class ServersDocument(Document):
    """All servers, in the order in which `auto` tries them; `lists` are the names of the lists of models."""

    servers: list[ServerDocument]
    lists: list[str]


class ServerText(Document):
    """A description as `autotuned.toml` would have it."""

    name: str
    source: Literal["shipped", "settings"]
    toml: str


class ServerCheck(Document):
    """One start with one model. `reason` null: it works. What was not come to is null.

    `cached_tokens` null: its usage does not tell them.
    """

    server: str
    version: str
    model: str
    argv: list[str]
    reason: str | None
    ready_ms: float | None
    ttft_ms: float | None
    tps: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    stop_ms: float | None
    remarks: list[str]
    log: str


class ServeDocument(Document):
    """What serves the recipe of a run, and the variables that are set for it."""

    run_id: str
    argv: list[str]
    env: dict[str, str]
