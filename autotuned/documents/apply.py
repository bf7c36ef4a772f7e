"""What became of the provider's configuration."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field

from autotuned.documents import Document


class ConfigurationResult(Document):
    """What became of the configuration. `changed` maps a key to its values `before` and `after`.

    `hint` holds the commands that make it live, one a line; `diff` our keys' lines and nothing else;
    `recipe` the owned keys as they are in the file then.
    """

    applied: bool
    changed: dict[str, Any]
    config_path: str
    backup_path: str | None
    restarted: bool
    diff: str
    hint: str | None
    warnings: list[str]
    in_effect: NotRequired[bool]
    """After a restart: the live server runs with the recipe."""
    run_id: NotRequired[Annotated[str | None, Field(default=None)]]
    recipe: NotRequired[Annotated[dict[str, str | int | None] | None, Field(default=None)]]
    reverted_to: NotRequired[Annotated[str | None, Field(default=None)]]
