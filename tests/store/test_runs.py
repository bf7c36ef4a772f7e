"""Runs, trials and events: what comes back is what went in, and what goes takes all that belongs to it along."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.model import Event, Replicate, Trial
from autotuned.shared.knobs import Knobs
from autotuned.store import events, runs, trials
from autotuned.store.migrations import MIGRATIONS, migrate
from tests.store import worlds
from tests.store.worlds import row

OWNED = ("tune_runs", "run_details", "tune_trials", "trial_details", "samples", "events")
TRIAL = Trial(2, "m", 1, Knobs(None, 1, 2000), (Replicate(tps=1.0), Replicate(error="x")), None)


@contextlib.contextmanager
def memory() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        made.execute("PRAGMA foreign_keys = ON")
        migrate(made)
        yield made


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with memory() as made:
        yield made


@settings(max_examples=60)
@given(st.lists(worlds.trials, max_size=3))
def test_the_history_that_comes_back_is_the_one_that_was_kept(history: list[Trial]) -> None:
    with memory() as db:
        runs.begin(db, row("r"), {})
        runs.begin(db, row("other"), {})
        for trial in history:
            trials.append(db, "r", trial, 2000, 48)
        assert trials.history(db, "r") == tuple(history)
        assert trials.history(db, "other") == ()


def test_a_run_reads_interrupted_until_its_end_is_written(db: sqlite3.Connection) -> None:
    runs.begin(db, row("r"), {"seed": 1, "warnings": ["w"]})
    begun = runs.run(db, "r")
    assert begun == row("r")
    assert begun is not None
    assert (begun.exit_reason, begun.ended_at_utc) == ("interrupted", None)
    answer = {"model": "m", "tps": 1.5}
    runs.finish(
        db,
        "r",
        exit_reason="ok",
        ended_at="2026-01-01T01:00:00.000Z",
        recommendation=answer,
        recipe_hash="sha256:x",
        details={"total_s": 9.5, "seed": 2},
    )
    ended = runs.run(db, "r")
    assert ended is not None
    assert (ended.exit_reason, ended.recipe_hash) == ("ok", "sha256:x")
    assert ended.recommendation_json == '{"model":"m","tps":1.5}'
    assert runs.details_of(db, "r") == {"seed": 2, "warnings": ["w"], "total_s": 9.5}
    assert runs.run(db, "nobody") is None
    assert runs.details_of(db, "nobody") == {}


def test_runs_are_paged_newest_first(db: sqlite3.Connection) -> None:
    for day in range(1, 8):
        runs.begin(db, row(f"r{day}", f"2026-01-0{max(day, 3)}T00:00:00.000Z"), {})
    pages: list[str] = []
    while page := runs.newest(db, 2, pages[-1] if pages else None):
        pages += [found.run_id for found in page]
    assert pages == ["r7", "r6", "r5", "r4", "r3", "r2", "r1"]


def filled(db: sqlite3.Connection, *names: str) -> None:
    for day, name in enumerate(names, start=1):
        runs.begin(db, row(name, f"2026-01-{day:02d}T00:00:00.000Z"), {"seed": 1})
        trials.append(db, name, TRIAL, 2000, 48)
        events.append(
            db, [Event(2 * day, "t", name, "phase", {}), Event(2 * day + 1, "t", name, "x", {})]
        )


def counts(db: sqlite3.Connection) -> dict[str, int]:
    return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in OWNED}  # noqa: S608


def test_retention_takes_everything_of_the_oldest_and_never_the_active_run(
    db: sqlite3.Connection,
) -> None:
    filled(db, "active", "b", "c", "d")
    assert sorted(runs.retain(db, 2, "active")) == ["b"]
    assert counts(db) == {
        "tune_runs": 3,
        "run_details": 3,
        "tune_trials": 3,
        "trial_details": 3,
        "samples": 6,
        "events": 6,
    }
    assert [found.run_id for found in runs.newest(db, 9)] == ["d", "c", "active"]
    assert runs.retain(db, 2, "active") == []
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_retention_happens_whole_or_not_at_all(db: sqlite3.Connection) -> None:
    filled(db, "a", "b", "c")
    before = counts(db)
    db.execute(
        "CREATE TRIGGER faulty BEFORE DELETE ON tune_runs WHEN OLD.run_id = 'a' "
        "BEGIN SELECT RAISE(ABORT, 'planned'); END"
    )
    with pytest.raises(sqlite3.Error, match="planned"):
        runs.retain(db, 1, "c")
    assert counts(db) == before
    assert not db.in_transaction


def test_a_trial_is_written_with_its_samples_or_not_at_all(db: sqlite3.Connection) -> None:
    runs.begin(db, row("r"), {})
    db.execute(
        "CREATE TRIGGER faulty BEFORE INSERT ON samples WHEN NEW.idx = 1 BEGIN SELECT RAISE(ABORT, 'planned'); END"
    )
    with pytest.raises(sqlite3.Error, match="planned"):
        trials.append(db, "r", TRIAL, 2000, 48)
    assert counts(db)["tune_trials"] == 0


@pytest.mark.parametrize(
    ("run_id", "since", "found"),
    [(None, 0, [1, 2, 3]), (None, 2, [3]), ("a", 0, [1, 3]), ("z", 0, [])],
)
def test_events_are_replayed_in_order(
    db: sqlite3.Connection, run_id: str | None, since: int, found: list[int]
) -> None:
    kept: list[Any] = [
        Event(1, "t", "a", "x", {"n": 1}),
        Event(2, "t", "b", "y", {}),
        Event(3, "t", "a", "z", {}),
    ]
    events.append(db, kept)
    assert events.since(db, since, run_id) == [kept[seq - 1] for seq in found]
    assert events.last_seq(db) == 3


def test_the_last_10000_events_are_kept(db: sqlite3.Connection) -> None:
    assert events.last_seq(db) == 0
    events.append(db, [Event(seq, "t", None, "x", {}) for seq in range(1, 10_006)])
    assert [event.seq for event in events.since(db, 0, None)][:: events.KEPT - 1] == [6, 10_005]


def test_p_4_the_newest_runs_are_found_without_looking_at_all_of_them(
    db: sqlite3.Connection,
) -> None:
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    runs.newest(db, 20)
    runs.newest(db, 20, "r")
    runs.newest(db, 1, None, runs.Which.GOOD)
    runs.newest(db, 2, "r", runs.Which.GOOD)
    runs.newest(db, 1, None, runs.Which.SEARCHED)
    runs.newest(db, 1, None, runs.Which.REFUSED)
    db.set_trace_callback(None)
    assert len(asked) == 6
    for query in asked:
        steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert "USING INDEX idx_tune_runs_" in steps[0]
        assert not [step for step in steps if "TEMP B-TREE" in step]


def test_the_latest_run_that_searched_is_never_a_refusal_or_a_measurement_of_noise(
    db: sqlite3.Connection,
) -> None:
    for day, (name, purpose) in enumerate(
        [("a", "search"), ("n", "noise"), ("b", "search"), ("x", "refused"), ("y", "refused")]
    ):
        made = dataclasses.replace(row(name, f"2026-01-0{day + 1}T00:00:00.000Z"), purpose=purpose)
        runs.begin(db, made, {})
    for which, found in {
        runs.Which.ALL: "yxbna",
        runs.Which.BEGUN: "bna",
        runs.Which.SEARCHED: "ba",
        runs.Which.REFUSED: "yx",
    }.items():
        assert "".join(each.run_id for each in runs.newest(db, 9, None, which)) == found
    assert runs.retain(db, 2, "b") == ["a"]
    assert runs.retain(db, 1, "y", runs.Which.REFUSED) == ["x"]


def test_an_older_database_learns_which_of_its_runs_searched(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "old.sqlite", isolation_level=None)
    for step in MIGRATIONS[:6]:
        step(old)
    details = {
        "search": {"seed": 1, "noise_of": None},
        "conflict-in-the-midst": {"seed": 1},
        "noise": {"seed": 1, "noise_of": "search"},
        "refused": {"trigger": "manual"},
        "prototype": None,
        "damaged": None,
    }
    names = ", ".join(f.name for f in dataclasses.fields(runs.RunRow) if f.name != "purpose")
    for name, kept in details.items():
        reason = "ok" if name in ("search", "noise", "prototype") else "provider_conflict"
        values = dataclasses.astuple(dataclasses.replace(row(name), exit_reason=reason))[:-1]
        marks = ", ".join("?" for _ in values)
        old.execute(f"INSERT INTO tune_runs({names}) VALUES ({marks})", values)  # noqa: S608
        if kept is not None:
            old.execute("INSERT INTO run_details VALUES (?, ?)", (name, json.dumps(kept)))
    old.execute("INSERT INTO run_details VALUES ('damaged', '{')")
    old.execute("PRAGMA user_version = 6")
    migrate(old)
    assert dict(old.execute("SELECT run_id, purpose FROM tune_runs")) == {
        "search": "search",
        "conflict-in-the-midst": "search",
        "noise": "noise",
        "refused": "refused",
        "prototype": "search",
        "damaged": "refused",
    }
    old.close()
