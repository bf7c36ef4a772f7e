"""The kept events: the last 10,000, in order, so that a subscriber can go on from where it was."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from autotuned.core.model import Event
from autotuned.store.database import transaction

KEPT = 10_000


def append(db: sqlite3.Connection, events: Sequence[Event]) -> None:
    """Write a batch, and let the oldest beyond 10,000 go."""
    with transaction(db):
        db.executemany(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            [
                (event.seq, event.ts, event.run_id, event.type, json.dumps(event.fields))
                for event in events
            ],
        )
        db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (KEPT,))


def since(db: sqlite3.Connection, seq: int, run_id: str | None, limit: int = KEPT) -> list[Event]:
    """Events after `seq`, oldest first; of one run only where `run_id` is given."""
    if run_id is None:
        return _events(db, "seq > ?", (seq,), limit)
    return _events(db, "seq > ? AND run_id = ?", (seq, run_id), limit)


def unfinished_runs(db: sqlite3.Connection) -> list[str]:
    """Runs that a crash cut off and whose followers have not been told, oldest first."""
    rows = db.execute(
        "SELECT run_id FROM tune_runs AS r WHERE ended_at_utc IS NULL "
        "AND EXISTS (SELECT 1 FROM events WHERE run_id = r.run_id) "
        "AND NOT EXISTS (SELECT 1 FROM events WHERE run_id = r.run_id AND type = 'run.finished') "
        "ORDER BY started_at_utc"
    )
    return [row[0] for row in rows]


def of_type(db: sqlite3.Connection, run_id: str, kind: str) -> list[Event]:
    """The events of one type that are kept of a run, oldest first."""
    return _events(db, "run_id = ? AND type = ?", (run_id, kind))


def _events(
    db: sqlite3.Connection, where: str, values: tuple[str | int, ...], limit: int = -1
) -> list[Event]:
    query = f"SELECT seq, ts_utc, run_id, type, fields_json FROM events WHERE {where} ORDER BY seq LIMIT ?"
    return [
        Event(seq, ts, run, kind, json.loads(fields))
        for seq, ts, run, kind, fields in db.execute(query, (*values, limit))
    ]


def last_seq(db: sqlite3.Connection) -> int:
    """The highest sequence number ever kept, 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
