"""The live provider, what is owed to it, and what became of its configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from autotuned.documents import Document


class LiveProviderDocument(Document):
    """The operator's own server, as seen a moment ago. `healthy`: its port answers.

    `loaded`: launchd has its job, or systemd its unit; `since` and `runs`: when its process was started, and how often launchd has
    done so. Null where that cannot be known.
    """

    kind: Literal["launchd", "systemd", "foreground"]
    state: str
    port: int
    pid: int | None
    healthy: bool
    loaded: NotRequired[Annotated[bool | None, Field(default=None)]]
    running: NotRequired[Annotated[bool | None, Field(default=None)]]
    since: NotRequired[Annotated[str | None, Field(default=None)]]
    runs: NotRequired[Annotated[int | None, Field(default=None)]]
    label: NotRequired[Annotated[str | None, Field(default=None)]]
    domain: NotRequired[Annotated[str | None, Field(default=None)]]
    unit: NotRequired[Annotated[str | None, Field(default=None)]]
    scope: NotRequired[Annotated[str | None, Field(default=None)]]
    """Of a unit of systemd: `user` or `system`."""
    plist: NotRequired[Annotated[str | None, Field(default=None)]]
    age_s: NotRequired[Annotated[float | None, Field(default=None)]]
    """How long ago it was seen."""


class LeaseDocument(Document):
    """A live provider that was stopped for a run. `outstanding`: it is still to be brought back."""

    lease_id: str
    run_id: str
    state: str
    outstanding: bool
    since: str
    updated_at: str
    attempts: int
    reason: str | None
    holder_pid: int
    by: str
    port: int
    kind: Literal["launchd", "systemd", "foreground"]
    pid: int | None
    label: NotRequired[Annotated[str | None, Field(default=None)]]
    domain: NotRequired[Annotated[str | None, Field(default=None)]]
    unit: NotRequired[Annotated[str | None, Field(default=None)]]
    scope: NotRequired[Annotated[str | None, Field(default=None)]]
    """Of a unit of systemd: `user` or `system`."""
    plist: NotRequired[Annotated[str | None, Field(default=None)]]
    restart: NotRequired[Annotated[bool | None, Field(default=None)]]
    command: NotRequired[Annotated[str | None, Field(default=None)]]
    log: NotRequired[Annotated[str | None, Field(default=None)]]
    new_pid: NotRequired[Annotated[int | None, Field(default=None)]]


class LeftStoppedDocument(Document):
    """A server that a run has stopped and nobody has started again; `command` does, secrets masked."""

    run_id: str
    name: str
    command: str


class RestoreDocument(Document):
    """Whether nothing is owed any more, else what."""

    restored: bool
    lease: LeaseDocument | None


class ForgetDocument(Document):
    """Whether the lease was dropped, what a restore would have done, and what is still owed."""

    forgotten: bool
    would: list[str]
    lease: LeaseDocument | None


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
