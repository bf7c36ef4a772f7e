"""The cache of weights, and bringing a model into it."""

from __future__ import annotations

from typing import Literal

from autotuned.documents import Document

Outcome = Literal["ok", "transient", "integrity", "static", "interrupted", "internal_error"]


class ModelDocument(Document):
    """One model of the cache. `size_b`: parameters in billions, by its name."""

    model: str
    format: Literal["mlx", "gguf"]
    size_b: float | None
    weights_bytes: int
    complete: bool
    reason: str | None
    fits: bool
    checked_at: str | None


class ModelsDocument(Document):
    """The cache of weights."""

    cache: str
    disk_free_bytes: int
    memory_bytes: int
    models: list[ModelDocument]


class PullProgressDocument(Document):
    """`rate` in bytes a second."""

    activity: Literal["fetch", "check"]
    bytes: int
    total: int
    rate: int


class PullDocument(Document):
    """A pull. `outcome` is null while it goes on."""

    pull_id: str
    model: str
    state: Literal["running", "finished"]
    outcome: Outcome | None
    reason: str | None
    path: str | None
    weights_bytes: int | None
    progress: PullProgressDocument | None
