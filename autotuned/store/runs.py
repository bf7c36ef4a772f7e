"""Runs: one function a question, core values in and out.

`tune_runs` is a public format; what is known of a run beyond it stands in a table of ours.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict, cast

from autotuned.core.model import CUT_SHORT
from autotuned.documents.noise import MeasuredDocument, NoiseDocument
from autotuned.documents.result import (
    AppliedDocument,
    CalibrationDocument,
    CheckedDocument,
    ConfirmationDocument,
    ErrorDocument,
    ProfileDocument,
    ResultDocument,
    SearchDocument,
)
from autotuned.documents.trial import KnobsDocument
from autotuned.store.database import insert, json_text, transaction


@dataclass(frozen=True, slots=True)
class RunRow:
    run_id: str
    started_at_utc: str
    ended_at_utc: str | None
    spec_version: str
    binary_version: str
    machine_ram_gb: int
    machine_chip: str
    machine_os_version: str
    target_context: int
    candidate_models_json: str
    stage1_replicates: int
    stage2_replicates: int
    gate_ttft_ms: int
    tps_tie_epsilon: float
    recommendation_json: str | None = None
    recipe_hash: str | None = None
    applied: int = 0
    exit_reason: str = "interrupted"
    purpose: str = "search"
    """Or `noise`, a measurement of it; `check`, a recipe measured again; or `refused`, a request that was turned away before it began."""


class Confirmed(TypedDict):
    """The machine on which a scheduled check has found a run's recipe as good as it was."""

    os_version: str
    os_build: str
    binary_version: str
    chip: str
    ram_gb: int


class Details(TypedDict, total=False):
    """What is known of a run beside its row, which a prototype's run has nothing of.

    The request's side is written at the begin, the outcome at the end; `warnings`, `applied`,
    `confirmed` and `noise` at any time.
    """

    trigger: str
    provider: str | None
    warnings: list[str]
    seed: int | None
    live_model: str | None
    request: dict[str, Any]
    os_build: str
    max_tokens: int
    noise_of: str | None
    earlier_s: float
    """What a run that goes on has taken before it was cut off."""
    total_s: float
    left_stopped: str | None
    alternates: list[str]
    check: CheckedDocument
    confirmation: ConfirmationDocument
    error: ErrorDocument | None
    calibration: CalibrationDocument
    profiles: list[ProfileDocument]
    applied: AppliedDocument | None
    confirmed: Confirmed
    noise: NoiseDocument
    search: SearchDocument
    untried: list[KnobsDocument]
    document: ResultDocument
    """Of the first version's runs: the outcome as it was at their end."""


_RUN_COLUMNS = ", ".join(field.name for field in dataclasses.fields(RunRow))


def begin(db: sqlite3.Connection, row: RunRow, details: Details) -> None:
    """Write a new run; until it is finished it reads `interrupted`, so that a crash needs no clean-up."""
    with transaction(db, durable=True):
        insert(db, "tune_runs", dataclasses.asdict(row))
        _keep(db, row.run_id, details)


def reopen(db: sqlite3.Connection, run_id: str, details: Details) -> None:
    """Make an ended run one that goes on: no end, no outcome, and no trial that was cut short."""
    with transaction(db, durable=True):
        marks = ", ".join("?" for _ in CUT_SHORT)
        db.execute(
            "DELETE FROM tune_trials WHERE run_id = ? AND id IN "
            f"(SELECT trial_id FROM trial_details WHERE failure_kind IN ({marks}))",
            (run_id, *CUT_SHORT),
        )
        db.execute(
            "UPDATE tune_runs SET exit_reason = 'interrupted', ended_at_utc = NULL, "
            "recommendation_json = NULL, recipe_hash = NULL WHERE run_id = ?",
            (run_id,),
        )
        _keep(db, run_id, details)
        said = {"level": "note", "message": "the run was cut off here, and goes on"}
        db.execute(  # whoever follows it must not take its first end for its last
            "UPDATE events SET type = 'log', fields_json = ? WHERE run_id = ? AND type = 'run.finished'",
            (json_text(said), run_id),
        )


def finish(
    db: sqlite3.Connection,
    run_id: str,
    *,
    exit_reason: str,
    ended_at: str,
    recommendation: Mapping[str, Any] | None,
    recipe_hash: str | None,
    details: Details,
) -> None:
    """Write the end of a run; `details` are added to what is there."""
    found = None if recommendation is None else json_text(recommendation)
    with transaction(db, durable=True):
        db.execute(
            "UPDATE tune_runs SET exit_reason = ?, ended_at_utc = ?, recommendation_json = ?, recipe_hash = ? "
            "WHERE run_id = ?",
            (exit_reason, ended_at, found, recipe_hash, run_id),
        )
        _keep(db, run_id, {**details_of(db, run_id), **details})


def annotate(
    db: sqlite3.Connection,
    run_id: str,
    *,
    applied: AppliedDocument | None = None,
    warnings: Sequence[str] = (),
    measured: MeasuredDocument | None = None,
    confirmed: Confirmed | None = None,
) -> None:
    """Add to a run, ended or not: what was applied of it, warnings, what is measured of its noise,
    the machine that it was confirmed on. A run that is gone meanwhile stays gone."""
    with transaction(db, durable=True):
        if run(db, run_id) is None:
            return
        details = details_of(db, run_id)
        details["warnings"] = [*details.get("warnings", ()), *warnings]
        if measured is not None:
            details["noise"] = {**details.get("noise", {}), "measured": measured}
        if confirmed is not None:
            details["confirmed"] = confirmed
        if applied is not None:
            details["applied"] = applied
            db.execute("UPDATE tune_runs SET applied = 1 WHERE run_id = ?", (run_id,))
        _keep(db, run_id, details)


def take_back(db: sqlite3.Connection, run_id: str, warning: str) -> None:
    """What was applied of a run is in force no longer; `warning` says why. Idempotent."""
    with transaction(db, durable=True):
        if run(db, run_id) is None:
            return
        details = details_of(db, run_id)
        details["applied"] = None
        details["warnings"] = list(dict.fromkeys([*details.get("warnings", ()), warning]))
        db.execute("UPDATE tune_runs SET applied = 0 WHERE run_id = ?", (run_id,))
        _keep(db, run_id, details)


def _keep(db: sqlite3.Connection, run_id: str, details: Details) -> None:
    db.execute("INSERT OR REPLACE INTO run_details VALUES (?, ?)", (run_id, json_text(details)))


def run(db: sqlite3.Connection, run_id: str) -> RunRow | None:
    row = db.execute(f"SELECT {_RUN_COLUMNS} FROM tune_runs WHERE run_id = ?", (run_id,)).fetchone()
    return RunRow(*row) if row else None


class Which(Enum):
    """Which runs are asked for; the value is the condition in SQL. `GOOD`: what this machine is known to serve."""

    ALL = ("TRUE",)
    BEGUN = ("purpose <> 'refused'",)
    SEARCHED = ("purpose = 'search'",)
    GOOD = (*SEARCHED, "exit_reason = 'ok'", "recommendation_json IS NOT NULL")
    PAST = (
        "exit_reason = 'ok'",
        "(purpose = 'check' OR purpose = 'search' AND recommendation_json IS NOT NULL)",
    )
    APPLIED = (*GOOD, "applied = 1")
    REFUSED = ("purpose = 'refused'",)


def newest(
    db: sqlite3.Connection, limit: int, before: str | None = None, which: Which = Which.BEGUN
) -> list[RunRow]:
    """The newest `limit` runs, newest first; `before` is the id of the run to go on after."""
    conditions: tuple[str, ...] = which.value
    values: tuple[str | int, ...] = (limit,)
    if before is not None:
        after = "(started_at_utc, run_id) < (SELECT started_at_utc, run_id FROM tune_runs WHERE run_id = ?)"
        conditions, values = (*conditions, after), (before, limit)
    where = " AND ".join(conditions)
    order = "ORDER BY started_at_utc DESC, run_id DESC LIMIT ?"
    rows = db.execute(f"SELECT {_RUN_COLUMNS} FROM tune_runs WHERE {where} {order}", values)
    return [RunRow(*row) for row in rows]


def details_of(db: sqlite3.Connection, run_id: str) -> Details:
    """What is kept beside a run's row; empty for a prototype's run."""
    row = db.execute("SELECT details_json FROM run_details WHERE run_id = ?", (run_id,)).fetchone()
    return cast("Details", json.loads(row[0])) if row else {}


def retain(db: sqlite3.Connection, keep: int, active: str, which: Which = Which.BEGUN) -> list[str]:
    """Drop all runs but the newest `keep` and the active one, with all that belongs to them; their ids.

    Refused requests are counted apart, so that no number of them pushes out what runs have found.
    """
    with transaction(db):
        kept = {row.run_id for row in newest(db, keep, None, which)}
        gone = [
            row.run_id for row in newest(db, -1, None, which) if row.run_id not in {*kept, active}
        ]
        for run_id in gone:
            db.execute("DELETE FROM tune_trials WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM events WHERE run_id = ?", (run_id,))
            db.execute("DELETE FROM tune_runs WHERE run_id = ?", (run_id,))
    return gone
