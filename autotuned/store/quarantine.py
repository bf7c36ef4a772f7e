"""Configurations that took the machine down: one function a question, core values in and out."""

from __future__ import annotations

import json
import sqlite3

from autotuned.core.quarantine import Entry, parse
from autotuned.store.database import transaction


def add(db: sqlite3.Connection, entry: Entry) -> None:
    """Write one, on the disk when this returns; the same start is written once."""
    document = entry.configuration.document()
    values = (
        entry.at,
        entry.run_id,
        json.dumps(document, ensure_ascii=False),
        entry.boot_id,
        entry.next_boot_id,
    )
    with transaction(db, durable=True):
        db.execute(
            "INSERT OR IGNORE INTO quarantine(at_utc, run_id, configuration_json, boot_id, next_boot_id) "
            "VALUES (?, ?, ?, ?, ?)",
            values,
        )


def entries(db: sqlite3.Connection) -> list[Entry]:
    """All of them, oldest first."""
    rows = db.execute(
        "SELECT id, at_utc, run_id, configuration_json, boot_id, next_boot_id FROM quarantine ORDER BY id"
    )
    return [
        Entry(parse(json.loads(text)), at, run_id, boot, following, number)
        for number, at, run_id, text, boot, following in rows
    ]


def clear(db: sqlite3.Connection, number: int | None) -> list[int]:
    """Lift one entry, or all for None; the numbers of those that were lifted."""
    with transaction(db, durable=True):
        rows = db.execute(
            "DELETE FROM quarantine WHERE ?1 IS NULL OR id = ?1 RETURNING id", (number,)
        )
        return sorted(row[0] for row in rows.fetchall())
