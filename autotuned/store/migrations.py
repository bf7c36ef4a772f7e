"""The schema, as numbered steps from whatever is found: an empty file or a prototype's database.

Each step runs once, in one transaction with its number. A step only adds: rows keep everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from autotuned.errors import StoreError

_TRIALS = """
CREATE TABLE IF NOT EXISTS tune_trials(id INTEGER PRIMARY KEY AUTOINCREMENT, ts_utc TEXT NOT NULL,
  run_id TEXT NOT NULL, stage INTEGER NOT NULL, model TEXT NOT NULL, target_context INTEGER NOT NULL,
  measured_prompt_tokens INTEGER, max_tokens INTEGER NOT NULL, agg_throughput_tps REAL, ttft_p95_ms REAL,
  fits INTEGER NOT NULL DEFAULT 0, n_err INTEGER NOT NULL DEFAULT 0, kept INTEGER NOT NULL DEFAULT 0,
  notes TEXT, kv_bits INTEGER, max_context_cap INTEGER, max_batch INTEGER, replicates_n INTEGER)
"""
_RUNS = """
CREATE TABLE IF NOT EXISTS tune_runs(run_id TEXT PRIMARY KEY, started_at_utc TEXT NOT NULL, ended_at_utc TEXT,
  spec_version TEXT NOT NULL, binary_version TEXT NOT NULL, machine_ram_gb INTEGER NOT NULL,
  machine_chip TEXT NOT NULL, machine_os_version TEXT NOT NULL, target_context INTEGER NOT NULL,
  candidate_models_json TEXT NOT NULL, stage1_replicates INTEGER NOT NULL, stage2_replicates INTEGER NOT NULL,
  gate_ttft_ms INTEGER NOT NULL, tps_tie_epsilon REAL NOT NULL, recommendation_json TEXT, recipe_hash TEXT,
  applied INTEGER NOT NULL DEFAULT 0, exit_reason TEXT NOT NULL)
"""
_PROTOTYPE_LACKS = {
    "stage": "INTEGER NOT NULL DEFAULT 1",
    "measured_prompt_tokens": "INTEGER",
    "agg_throughput_tps": "REAL",
    "ttft_p95_ms": "REAL",
    "fits": "INTEGER NOT NULL DEFAULT 0",
    "n_err": "INTEGER NOT NULL DEFAULT 0",
    "kept": "INTEGER NOT NULL DEFAULT 0",
    "notes": "TEXT",
    "kv_bits": "INTEGER",
    "max_context_cap": "INTEGER",
    "max_batch": "INTEGER",
    "replicates_n": "INTEGER",
}


def m001_public_tables(db: sqlite3.Connection) -> None:
    """The two public tables; a prototype's `tune_trials` gets the columns that it lacks."""
    db.execute(_TRIALS)
    db.execute(_RUNS)
    present = {row[1] for row in db.execute("PRAGMA table_info(tune_trials)")}
    for name, definition in _PROTOTYPE_LACKS.items():
        if name not in present:
            db.execute(f"ALTER TABLE tune_trials ADD COLUMN {name} {definition}")
    db.execute("CREATE INDEX IF NOT EXISTS idx_tune_trials_run_id ON tune_trials(run_id)")
    db.execute("CREATE INDEX IF NOT EXISTS idx_tune_trials_ts ON tune_trials(ts_utc)")
    db.execute("CREATE INDEX IF NOT EXISTS idx_tune_runs_started ON tune_runs(started_at_utc)")


def m002_our_tables(db: sqlite3.Connection) -> None:
    """What we keep beside the public tables: it goes with the run or trial that it belongs to."""
    db.execute(
        "CREATE TABLE run_details(run_id TEXT PRIMARY KEY REFERENCES tune_runs(run_id) ON DELETE CASCADE, "
        "details_json TEXT NOT NULL)"
    )
    db.execute(
        "CREATE TABLE trial_details(trial_id INTEGER PRIMARY KEY REFERENCES tune_trials(id) ON DELETE CASCADE, "
        "rank INTEGER NOT NULL, failure_kind TEXT, failure_reason TEXT, load_ms REAL, peak_rss_bytes INTEGER, "
        "worst_pressure TEXT NOT NULL, nice INTEGER, started_at_utc TEXT NOT NULL, ended_at_utc TEXT NOT NULL)"
    )
    db.execute(
        "CREATE TABLE samples(id INTEGER PRIMARY KEY, trial_id INTEGER NOT NULL REFERENCES tune_trials(id) "
        "ON DELETE CASCADE, idx INTEGER NOT NULL, error TEXT, ttft_ms REAL, tps REAL, decode_tps REAL, "
        "prefill_tps REAL, total_ms REAL, prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, "
        "leaked_token TEXT, alive_after INTEGER NOT NULL, gate_missed INTEGER NOT NULL, remarks_json TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX idx_samples_trial ON samples(trial_id)")
    db.execute(
        "CREATE TABLE events(seq INTEGER PRIMARY KEY, ts_utc TEXT NOT NULL, run_id TEXT, type TEXT NOT NULL, "
        "fields_json TEXT NOT NULL)"
    )
    db.execute("CREATE INDEX idx_events_run ON events(run_id, seq)")
    db.execute(
        "CREATE TABLE leases(lease_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, state TEXT NOT NULL, "
        "document_json TEXT NOT NULL, updated_at_utc TEXT NOT NULL)"
    )
    db.execute(
        "CREATE TABLE schedule(id INTEGER PRIMARY KEY CHECK (id = 1), document_json TEXT NOT NULL)"
    )


def m003_where_a_trials_time_went(db: sqlite3.Connection) -> None:
    """Each part of a trial in milliseconds; unknown for trials from before."""
    for part in ("pause", "prewarm", "load", "warm", "measure", "stop"):
        db.execute(f"ALTER TABLE trial_details ADD COLUMN spent_{part}_ms REAL")


def m004_priority(db: sqlite3.Connection) -> None:
    """The scheduler's priority of a candidate, where the system tells it."""
    db.execute("ALTER TABLE trial_details ADD COLUMN priority INTEGER")


def m005_decisions_of_the_schedule(db: sqlite3.Connection) -> None:
    """What was decided about each night; a run may go while the decision stays."""
    db.execute(
        "CREATE TABLE schedule_decisions(id INTEGER PRIMARY KEY AUTOINCREMENT, at_utc TEXT NOT NULL, "
        "night TEXT, action TEXT NOT NULL, reason TEXT NOT NULL, run_id TEXT, outcome TEXT)"
    )


def m006_runs_in_their_order(db: sqlite3.Connection) -> None:
    """The newest run and the newest good one are found without looking at the others: `status` asks for both."""
    db.execute("CREATE INDEX idx_tune_runs_order ON tune_runs(started_at_utc, run_id)")
    db.execute(
        "CREATE INDEX idx_tune_runs_good ON tune_runs(started_at_utc, run_id) "
        "WHERE exit_reason = 'ok' AND recommendation_json IS NOT NULL"
    )
    db.execute("DROP INDEX IF EXISTS idx_tune_runs_started")


def m007_what_a_run_was_for(db: sqlite3.Connection) -> None:
    """A search, a measurement of noise, or a request that was refused before it began: those have no seed."""
    db.execute("ALTER TABLE tune_runs ADD COLUMN purpose TEXT NOT NULL DEFAULT 'search'")
    detail = "SELECT 1 FROM run_details d WHERE d.run_id = tune_runs.run_id AND json_valid(details_json) AND"
    db.execute(
        "UPDATE tune_runs SET purpose = 'noise' "
        f"WHERE EXISTS ({detail} json_extract(details_json, '$.noise_of') IS NOT NULL)"
    )
    db.execute(
        "UPDATE tune_runs SET purpose = 'refused' WHERE exit_reason IN ('config_error', 'provider_conflict') "
        f"AND NOT EXISTS ({detail} json_type(details_json, '$.seed') IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM tune_trials t WHERE t.run_id = tune_runs.run_id)"
    )
    db.execute("CREATE INDEX idx_tune_runs_purpose ON tune_runs(purpose, started_at_utc, run_id)")


def m008_a_servers_own_knobs(db: sqlite3.Connection) -> None:
    """Knobs beyond the three that every server has, as pairs of name and value."""
    db.execute("ALTER TABLE tune_trials ADD COLUMN extra_knobs_json TEXT")


def m009_quarantine(db: sqlite3.Connection) -> None:
    """Configurations that took the machine down while they ran; an entry outlasts its run."""
    db.execute(
        "CREATE TABLE quarantine(id INTEGER PRIMARY KEY AUTOINCREMENT, at_utc TEXT NOT NULL, run_id TEXT NOT NULL, "
        "configuration_json TEXT NOT NULL, boot_id TEXT NOT NULL, next_boot_id TEXT NOT NULL, "
        "UNIQUE(at_utc, run_id, configuration_json))"
    )


def m010_several_requests_at_once(db: sqlite3.Connection) -> None:
    """Each stream's wave and number; of a trial how many were in flight, and what a point calibrated."""
    db.execute("ALTER TABLE tune_trials ADD COLUMN concurrency INTEGER")
    for column in ("wave INTEGER", "stream INTEGER", "sent_ms REAL"):
        db.execute(f"ALTER TABLE samples ADD COLUMN {column}")
    for column in ("itl_p50_ms REAL", "itl_p95_ms REAL", "calibrates TEXT", "confirms INTEGER"):
        db.execute(f"ALTER TABLE trial_details ADD COLUMN {column}")


def m011_how_a_cell_is_served(db: sqlite3.Connection) -> None:
    """The command line that serves a cell without us, as a list of words."""
    db.execute("ALTER TABLE trial_details ADD COLUMN serve_argv_json TEXT")


def m012_conditions(db: sqlite3.Connection) -> None:
    """What a trial ran under: power, load, other programs."""
    db.execute("ALTER TABLE trial_details ADD COLUMN conditions_json TEXT")


def m013_answers(db: sqlite3.Connection) -> None:
    """What a cell has answered to the quality guard, and why it cannot win."""
    db.execute("ALTER TABLE trial_details ADD COLUMN answers_json TEXT")
    db.execute("ALTER TABLE trial_details ADD COLUMN vetoed TEXT")


def m014_several_contexts(db: sqlite3.Connection) -> None:
    """The target context that a trial is for, in a run with several."""
    db.execute("ALTER TABLE trial_details ADD COLUMN profile INTEGER")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_public_tables,
    m002_our_tables,
    m003_where_a_trials_time_went,
    m004_priority,
    m005_decisions_of_the_schedule,
    m006_runs_in_their_order,
    m007_what_a_run_was_for,
    m008_a_servers_own_knobs,
    m009_quarantine,
    m010_several_requests_at_once,
    m011_how_a_cell_is_served,
    m012_conditions,
    m013_answers,
    m014_several_contexts,
)


def refuse_newer(db: sqlite3.Connection, path: str) -> None:
    """Raise StoreError for a schema newer than we know; the file stays untouched."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        message = (
            f"{path}: its schema version {version} is newer than this agent knows ({len(MIGRATIONS)}): "
            "install the newer autotuned again, or move the file aside"
        )
        raise StoreError(message, path=path)


def migrate(db: sqlite3.Connection) -> None:
    """Bring `db` to the newest schema, one transaction a step."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            step(db)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk has ended it already
                db.execute("ROLLBACK")
            raise
