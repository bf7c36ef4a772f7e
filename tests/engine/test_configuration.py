"""New settings without a restart, and a doctor whose checks do not depend on each other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from autotuned.engine import doctor
from autotuned.engine.doctor.check import CheckContext, Finding, fine
from autotuned.engine.settings import NEED_RESTART, Configuration, changes
from autotuned.errors import SettingsError
from autotuned.settings import LogSettings, ProviderSettings, Settings


def made(**sections: Any) -> Settings:
    paths: dict[str, Any] = {
        name: Path("/x") / name for name in ("home", "socket", "database", "logs")
    }
    return Settings(**paths, **sections)


async def test_what_needs_a_restart_keeps_its_old_value_and_is_named_each_time() -> None:
    new = made(
        log=LogSettings(level="debug", format="text"), provider=ProviderSettings(max_tokens=9)
    )
    configuration = Configuration(made(), lambda: new)
    told: list[Settings] = []
    configuration.adopt.append(told.append)
    found = await configuration.reload()
    assert found == {
        "changed": ["provider.max_tokens", "log.level", "log.format"],
        "applied": ["provider.max_tokens", "log.level"],
        "restart": ["log.format"],
    }
    assert told == [configuration.now]
    assert configuration.now.log == LogSettings(level="debug", format="json")
    assert (await configuration.reload())["changed"] == ["log.format"]


async def test_settings_that_cannot_be_read_leave_the_old_ones_in_use() -> None:
    def unreadable() -> Settings:
        message = "autotuned.toml: log.level: no"
        raise SettingsError(message)

    before = made()
    configuration = Configuration(before, unreadable)
    with pytest.raises(SettingsError):
        await configuration.reload()
    assert configuration.now is before


def test_every_key_that_needs_a_restart_is_a_key() -> None:
    other = Settings(
        home=Path("/1"),
        socket=Path("/2"),
        database=Path("/3"),
        logs=Path("/4"),
        log=LogSettings(format="text"),
    )
    assert set(changes(made().model_dump(), other.model_dump())) == NEED_RESTART


async def test_a_check_that_hangs_or_fails_costs_no_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs(_: CheckContext) -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def fails(_: CheckContext) -> Finding:
        message = "a secret detail"
        raise RuntimeError(message)

    async def works(_: CheckContext) -> Finding:
        return fine("good")

    monkeypatch.setattr(doctor, "CHECKS", {"hangs": hangs, "fails": fails, "works": works})
    monkeypatch.setattr(doctor, "DEADLINE_S", 0.05)
    context: Any = None
    found = await doctor.examine(context)
    levels = {check["name"]: check["level"] for check in found["checks"]}
    assert levels == {"hangs": "warning", "fails": "warning", "works": "info"}
    assert all("secret detail" not in check["detail"] for check in found["checks"])
    assert all(check["remedy"] for check in found["checks"] if check["level"] != "info")
    assert found["ok"] is True


def test_every_check_has_a_name_of_its_own_and_says_what_it_looks_at() -> None:
    assert len(doctor.CHECKS) >= 20
    assert all(check.__doc__ for check in doctor.CHECKS.values())
