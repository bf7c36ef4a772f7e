"""The schedule and what was decided about each night: one function a question, core values in and out."""

from __future__ import annotations

import json
import sqlite3
from datetime import date, datetime

from autotuned.core.schedule import Action, Decision, Schedule
from autotuned.store.database import transaction

KEPT = 400
"""Decisions that are kept: more than a year of nights."""


def load(db: sqlite3.Connection) -> tuple[Schedule, datetime | None]:
    """The schedule, and since when it holds; the default, which is off, where none was ever set."""
    row = db.execute("SELECT document_json FROM schedule WHERE id = 1").fetchone()
    if row is None:
        return Schedule(), None
    document = json.loads(row[0])
    return Schedule.model_validate(document["schedule"]), datetime.fromisoformat(document["set_at"])


def save(db: sqlite3.Connection, schedule: Schedule, set_at: datetime) -> None:
    document = {"schedule": schedule.model_dump(mode="json"), "set_at": set_at.isoformat()}
    with transaction(db, durable=True):
        db.execute("INSERT OR REPLACE INTO schedule VALUES (1, ?)", (json.dumps(document),))


def decisions(db: sqlite3.Connection) -> list[Decision]:
    """All that are kept, oldest first."""
    rows = db.execute(
        "SELECT id, at_utc, night, action, reason, run_id, outcome FROM schedule_decisions ORDER BY id"
    )
    return [
        Decision(
            id=number,
            at=datetime.fromisoformat(at),
            night=None if night is None else date.fromisoformat(night),
            action=Action(action),
            reason=reason,
            run_id=run_id,
            outcome=outcome,
        )
        for number, at, night, action, reason, run_id, outcome in rows
    ]


def record(db: sqlite3.Connection, decision: Decision) -> int:
    """Write a decision, on the disk before this returns: a night that has begun never begins again. Its id."""
    values = (
        decision.id or None,
        decision.at.isoformat(),
        None if decision.night is None else decision.night.isoformat(),
        decision.action.value,
        decision.reason,
        decision.run_id,
        decision.outcome,
    )
    with transaction(db, durable=True):
        cursor = db.execute(
            "INSERT OR REPLACE INTO schedule_decisions VALUES (?, ?, ?, ?, ?, ?, ?)", values
        )
        db.execute(
            "DELETE FROM schedule_decisions WHERE id <= (SELECT max(id) FROM schedule_decisions) - ?",
            (KEPT,),
        )
    return cursor.lastrowid or decision.id
