"""Checks of what is the agent's own: settings, socket, store, logs, lease, schedule."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import tempfile
from pathlib import Path

from autotuned.engine.doctor.check import Check, CheckContext, Finding, broken, doubt, fine
from autotuned.errors import SettingsError
from autotuned.shared.files import open_to_others
from autotuned.store import quarantine as store_quarantine
from autotuned.store.database import set_aside

MB = 10**6


def settings(context: CheckContext) -> Finding:
    """The settings file as it is now can be used, and is the one in use."""
    path = context.settings.home / "autotuned.toml"
    try:
        now = context.reread()
    except SettingsError as error:
        return broken(error.message, "correct it; until then the agent would not start again")
    if now != context.settings:
        return doubt(f"{path} has been changed since it was read", "autotunectl daemon reload")
    return fine(f"{path} is in use" if path.exists() else f"defaults: there is no {path}")


def socket(context: CheckContext) -> Finding:
    """The socket is this user's alone."""
    path = context.settings.socket
    folder = path.parent
    try:
        around, itself = folder.lstat(), path.lstat()
    except OSError as error:
        return broken(f"{error.filename}: {error.strerror}", "autotunectl daemon restart")
    for name, status in ((folder, around), (path, itself)):
        if fault := open_to_others(name, status):
            return broken(f"{name} {fault[0]}", fault[1])
    if not stat.S_ISSOCK(itself.st_mode) or not stat.S_ISDIR(around.st_mode):
        return broken(f"{path} is no socket in a folder of its own", "autotunectl daemon restart")
    return fine(f"{path}, for this user alone")


async def store(context: CheckContext) -> Finding:
    """The database is sound."""
    database = context.records.database
    found, version = await database.ask(_quick_check)
    size = await asyncio.to_thread(_size, database.path)
    told = f"{database.path}, schema {version}, {size / MB:.1f} MB"
    if found != "ok":
        return broken(
            f"{told}: {found}",
            "autotunectl daemon restart: a damaged database is set aside, and a new one begun",
        )
    aside = await asyncio.to_thread(set_aside, database.path)
    if aside:
        names = ", ".join(str(each) for each in aside)
        return doubt(
            f"{told}; begun anew because the former one was damaged, which is now {names}",
            "autotunectl doctor --acknowledge, once you know of it",
        )
    return fine(told)


def _quick_check(db: sqlite3.Connection) -> tuple[str, int]:
    found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    return found, int(db.execute("PRAGMA user_version").fetchone()[0])


def _size(path: Path) -> int:
    parts = (path, path.with_name(f"{path.name}-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def logs(context: CheckContext) -> Finding:
    """Logs can be written, and read by this user alone."""
    folder = context.settings.logs
    try:
        found = folder.stat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return broken(
            f"{folder}: {error.strerror}",
            f"make it a folder that this user can write: ls -ld '{folder}'",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        return doubt(f"{folder} can be entered by others", f"chmod 700 '{folder}'")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return fine(f"{folder}, {size / MB:.1f} MB")


async def lease(context: CheckContext) -> Finding:
    """No live provider is owed its restore."""
    owed = context.lease
    if owed is None:
        return fine("no live provider is owed a restore")
    reason = owed.get("reason")
    if context.active_run is not None and reason is None:
        return fine(
            f"the live provider is stopped for run {context.active_run}, and comes back with its end"
        )
    return broken(
        f"the live provider was stopped at {owed.get('since')} and is not back: {reason or 'no reason is known'}",
        "autotunectl provider restore",
    )


async def schedule(context: CheckContext) -> Finding:
    """The nightly re-tune, where one is set, can fire and has not paused itself."""
    told = context.schedule
    if not told or not told["enabled"]:
        return fine("off")
    if told["fault"]:
        return broken(
            f"set, but it cannot fire: {told['fault']}", "correct that; autotunectl daemon restart"
        )
    paused = told["paused"]
    if paused:
        return doubt(f"paused: {paused}", "autotunectl schedule show; schedule set resumes it")
    return fine(f"next at {told['next_run_at'] or 'no time'}")


async def quarantine(context: CheckContext) -> Finding:
    """Nothing has taken the machine down."""
    entries = await context.records.database.ask(store_quarantine.entries)
    if not entries:
        return fine("no configuration is in quarantine")
    models = ", ".join(dict.fromkeys(entry.configuration.model for entry in entries))
    counted = f"{len(entries)} configuration{'s' if len(entries) > 1 else ''}"
    return doubt(
        f"{counted} took the machine down and will not be started again: {models}",
        "autotunectl quarantine; once the cause is known, autotunectl quarantine clear",
    )


CHECKS: tuple[Check, ...] = (settings, socket, store, logs, lease, schedule, quarantine)
