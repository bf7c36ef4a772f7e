"""The file: upgraded, refused, moved aside or locked, always with one clear error that names it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from autotuned.errors import StoreError
from autotuned.store import database as files
from autotuned.store import events, runs, trials
from autotuned.store.database import Database
from autotuned.store.migrations import MIGRATIONS
from tests.store.worlds import row

MANDATORY = (
    "id INTEGER PRIMARY KEY AUTOINCREMENT, ts_utc TEXT NOT NULL, run_id TEXT NOT NULL, "
    "model TEXT NOT NULL, target_context INTEGER NOT NULL, measured_prompt_tokens INTEGER, "
    "max_tokens INTEGER NOT NULL, agg_throughput_tps REAL, ttft_p95_ms REAL, "
    "fits INTEGER NOT NULL DEFAULT 0, n_err INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0, notes TEXT"
)
PROTOTYPES = {
    "without knobs": "",
    "with knobs": ", kv_bits INTEGER, max_context_cap INTEGER, max_batch INTEGER",
    "with knobs and replicates": ", kv_bits INTEGER, max_context_cap INTEGER, max_batch INTEGER, replicates_n INTEGER",
    "with a stage": ", stage INTEGER NOT NULL DEFAULT 2",
}
PUBLIC = {
    "tune_trials": "id ts_utc run_id stage model target_context measured_prompt_tokens max_tokens agg_throughput_tps "
    "ttft_p95_ms fits n_err kept notes kv_bits max_context_cap max_batch replicates_n",
    "tune_runs": "run_id started_at_utc ended_at_utc spec_version binary_version machine_ram_gb machine_chip "
    "machine_os_version target_context candidate_models_json stage1_replicates stage2_replicates gate_ttft_ms "
    "tps_tie_epsilon recommendation_json recipe_hash applied exit_reason",
}


def columns(path: Path, table: str) -> list[str]:
    return [str(r[1]) for r in sql(path, f"PRAGMA table_info({table})")]


def sql(path: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(query, values).fetchall()


def prototype(path: Path, more: str) -> None:
    sql(path, f"CREATE TABLE tune_trials({MANDATORY}{more})")
    sql(
        path,
        "INSERT INTO tune_trials(id, ts_utc, run_id, model, target_context, max_tokens, agg_throughput_tps, kept, "
        "notes) VALUES (7, '2025-01-01T00:00:00Z', 'old', 'm', 2000, 48, 9.5, 1, 'mine')",
    )


async def test_a_new_database_has_the_public_columns_first_and_in_their_order(
    tmp_path: Path,
) -> None:
    path = tmp_path / "deep" / "a.sqlite"
    await (await Database.open(path)).close()
    for table, names in PUBLIC.items():
        assert columns(path, table)[: len(names.split())] == names.split()
    indexes = {r[1] for r in sql(path, "PRAGMA index_list(tune_trials)")}
    assert {"idx_tune_trials_run_id", "idx_tune_trials_ts"} <= indexes
    assert sql(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", PROTOTYPES)
async def test_a_prototype_is_upgraded_in_place_and_twice_is_harmless(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.sqlite"
    prototype(path, PROTOTYPES[kind])
    for _turn in range(2):
        store = await Database.open(path)
        [old] = await store.ask(trials.history, "old")
        await store.close()
        assert set(PUBLIC["tune_trials"].split()) <= set(columns(path, "tune_trials"))
        stage = 2 if kind == "with a stage" else 1
        found = sql(
            path, "SELECT id, stage, agg_throughput_tps, kept, notes, kv_bits FROM tune_trials"
        )
        assert found == [(7, stage, 9.5, 1, "mine", None)]
        assert (old.stage, old.knobs, old.kept) == (stage, None, True)
        assert old.failure is not None
        assert old.failure.reason == "mine"


async def test_new_rows_can_stand_beside_a_prototypes(tmp_path: Path) -> None:
    prototype(tmp_path / "a.sqlite", "")
    store = await Database.open(tmp_path / "a.sqlite")
    await store.ask(runs.begin, row("new"), {})
    assert [r.run_id for r in await store.ask(runs.newest, 9)] == ["new"]
    await store.close()


async def test_a_newer_schema_is_refused_and_the_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    sql(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="version 99 is newer") as refused:
        await Database.open(path)
    assert str(path) in refused.value.message
    assert "install the newer autotuned" in refused.value.message
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["garbage", "torn"])
async def test_a_corrupt_file_is_moved_aside_whole_and_a_new_one_begun(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 400)
    else:
        store = await Database.open(path)
        for number in range(40):
            await store.ask(runs.begin, row(f"r{number}", binary_version="v" * 500), {})
        await store.close()
        data = bytearray(path.read_bytes())
        data[4096:-4096] = os.urandom(len(data) - 8192)
        path.write_bytes(data)
    bad = path.read_bytes()
    monkeypatch.setattr("autotuned.store.database.time.time", lambda: 1_700_000_000.5)
    (tmp_path / "a.sqlite.corrupt-1700000000").write_bytes(b"an earlier one")
    store = await Database.open(path)
    assert store.moved_aside == tmp_path / "a.sqlite.corrupt-1700000000-1"
    assert store.moved_aside.read_bytes() == bad
    assert await store.ask(runs.newest, 9) == []
    await store.close()
    assert (tmp_path / "a.sqlite.corrupt-1700000000").read_bytes() == b"an earlier one"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_read_only_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="is its folder writable") as refused:
        await Database.open(tmp_path / "ro" / "a.sqlite")
    assert str(tmp_path / "ro" / "a.sqlite") in refused.value.message


async def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "a.sqlite"
    with pytest.raises(StoreError, match="is its folder writable") as refused:
        await Database.open(path)
    assert refused.value.data == {"path": str(path)}
    with pytest.raises(StoreError):
        await Database.open(tmp_path)  # a folder is no file


async def test_another_writer_is_waited_for_and_then_reported_and_nothing_is_half_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.sqlite"
    store = await Database.open(path)
    await store.ask(lambda db: db.execute("PRAGMA busy_timeout = 50").fetchone())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as refused:
            await store.ask(runs.begin, row("r"), {})
        assert str(path) in refused.value.message
        other.execute("COMMIT")
    await store.ask(runs.begin, row("r"), {})
    await store.close()
    assert sql(path, "SELECT run_id FROM tune_runs") == [("r",)]


async def test_a_failed_question_leaves_no_transaction_open(tmp_path: Path) -> None:
    store = await Database.open(tmp_path / "a.sqlite")
    await store.ask(runs.begin, row("r"), {})
    with pytest.raises(StoreError, match="UNIQUE"):
        await store.ask(runs.begin, row("r"), {})

    def begins_and_fails(db: sqlite3.Connection) -> Sequence[object]:
        db.execute("BEGIN")
        return db.execute("SELECT nonsense").fetchall()

    with pytest.raises(StoreError, match="nonsense"):
        await store.ask(begins_and_fails)
    await store.ask(runs.begin, row("s"), {})
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.ask(events.last_seq)


async def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    store = await Database.open(tmp_path / "a.sqlite")
    await store.ask(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())

    async def fill() -> None:
        for number in range(200):
            await store.ask(runs.begin, row(f"r{number}", binary_version="v" * 4000), {})

    with pytest.raises(StoreError, match="full") as refused:
        await fill()
    assert "room on the disk" in refused.value.message
    await store.close()


async def test_durable_writes_sync_and_others_do_not(tmp_path: Path) -> None:
    store = await Database.open(tmp_path / "a.sqlite")

    def level(db: sqlite3.Connection, durable: bool) -> int:
        with files.transaction(db, durable=durable):
            return int(db.execute("PRAGMA synchronous").fetchone()[0])

    assert [await store.ask(level, True), await store.ask(level, False)] == [2, 1]
    await store.close()
