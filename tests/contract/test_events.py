"""What a real agent publishes, against the shapes that it says events have."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from pydantic import TypeAdapter

from autotuned.documents import events
from tests.support.home import Home, X, Y
from tests.support.live import LaunchdJob


def published(home: Home) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home.database)) as db:
        rows = db.execute("SELECT type, fields_json FROM events ORDER BY seq").fetchall()
    return [{"type": kind, **json.loads(fields)} for kind, fields in rows]


def test_every_event_of_a_run_with_a_drain_has_its_published_shape(home: Home) -> None:
    home.provider({X: {"exit_code": 1}, Y: {}})
    LaunchdJob(home)
    home.tune(X, Y, stage2_replicates=1, drain=True, apply=True)
    found = published(home)
    shape: TypeAdapter[events.AnyEvent] = TypeAdapter(events.AnyEvent)
    for event in found:
        shape.validate_python(event)
    assert {event["type"] for event in found} >= {
        "run.started", "phase", "drain.begun", "drain.done", "prewarm.done", "provider.starting",
        "provider.ready", "replicate", "trial", "best", "applied", "restore.begun", "restore.done",
        "run.finished",
    }  # fmt: skip


def test_each_type_is_a_shape_of_its_own_or_tells_a_trial_from_a_pull() -> None:
    described = [set(shape.__annotations__) for shape in events.EVENTS]
    assert all("type" in fields for fields in described)
    assert len(events.EVENTS) == len({shape.__name__ for shape in events.EVENTS})
