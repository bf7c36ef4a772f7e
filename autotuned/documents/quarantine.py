"""Configurations that took the machine down while they ran."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import Field

from autotuned.documents import Document, Moment
from autotuned.documents.trial import KnobsDocument


class ConfigurationDocument(Document):
    """What was started. `knobs` null: a probe."""

    provider: str
    binary_version: str
    model: str
    knobs: KnobsDocument | None
    target_context: int


class QuarantineEntry(ConfigurationDocument):
    """A configuration that is not started again: the machine went down while it ran. `knobs` null: a probe."""

    entry: int
    at: Moment
    run_id: str


class QuarantineDocument(Document):
    """All entries, oldest first; `cleared` are the numbers of those that were lifted."""

    entries: list[QuarantineEntry]
    cleared: NotRequired[Annotated[list[int], Field(default=[])]]
