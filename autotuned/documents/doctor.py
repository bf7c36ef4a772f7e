"""The checks of `doctor`, and what `reload` has read."""

from __future__ import annotations

from typing import Literal

from autotuned.documents import Document


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
