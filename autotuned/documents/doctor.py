"""The checks of `doctor`, what `reload` has read, and configurations that took the machine down."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document, Moment
from autotuned.documents.trial import KnobsDocument


class CheckDocument(Document):
    """One check; `ok` is false for the level `error` alone."""

    name: str
    ok: bool
    level: Literal["info", "warning", "error"]
    detail: str
    remedy: str | None


class DoctorDocument(Document):
    """`ok`: nothing is broken."""

    ok: bool
    checks: list[CheckDocument]


class ReloadDocument(Document):
    """Settings that have changed: in use from now on, or after a restart."""

    changed: list[str]
    applied: list[str]
    restart: list[str]


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
