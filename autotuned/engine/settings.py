"""The settings in use, and taking new ones without a restart.

Whoever needs a setting asks `now`; a run in progress keeps those with which it began. What is fixed
when the agent starts keeps its old value, and is named. Must not know where settings come from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from autotuned.documents.doctor import ReloadDocument
from autotuned.settings import Settings

NEED_RESTART = frozenset({"home", "socket", "database", "logs", "log.format"})
"""What the agent has opened, or arranged itself by, when it started."""

log = structlog.get_logger(__name__)


class Configuration:
    """The settings in use. `adopt` are told of new ones, once these are in use."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        """`reread` reads the settings as at the start; raises SettingsError."""
        self.now, self.reread = settings, reread
        self.adopt: list[Callable[[Settings], None]] = []

    async def reload(self) -> ReloadDocument:
        """Read the settings again and use what can be used at once: `{changed, applied, restart}`, keys in words.

        Raises SettingsError naming file, key and rule; the old settings stay in use then.
        """
        found = await asyncio.to_thread(self.reread)
        changed = changes(self.now.model_dump(), found.model_dump())
        later = [key for key in changed if key in NEED_RESTART]
        self.now = _keeping(self.now, found, later)
        for told in self.adopt:
            told(self.now)
        applied = [key for key in changed if key not in later]
        log.info("settings read again", applied=applied, restart=later)
        return {"changed": changed, "applied": applied, "restart": later}


def changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """The keys whose values differ, as `section.key`."""
    found: list[str] = []
    for key in before | after:
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{inner}" for inner in changes(old, new)]
        elif old != new:
            found.append(key)
    return found


def _keeping(before: Settings, after: Settings, keys: Sequence[str]) -> Settings:
    """`after` with the old values of `keys`."""
    for key in keys:
        section, _, name = key.rpartition(".")
        if section:
            kept = getattr(getattr(before, section), name)
            value = getattr(after, section).model_copy(update={name: kept})
            after = after.model_copy(update={section: value})
        else:
            after = after.model_copy(update={name: getattr(before, name)})
    return after
