"""Every published shape once: answers, events, results. mypy checks where one is built, and the
published schemas are generated from the same classes; nothing is converted at run time.

Fields are added, never changed or removed. A docstring is the description that a schema carries.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

Moment = Annotated[
    str, Field(description="UTC, ISO 8601 with Z", examples=["2026-01-31T03:30:00.000Z"])
]


@with_config(ConfigDict(extra="forbid"))
class Document(TypedDict):
    """What an answer holds, and nothing else."""


class Empty(Document):
    """Nothing to tell."""
