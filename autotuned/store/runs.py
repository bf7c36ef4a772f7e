"""Runs and trials: one function a question, core values in and out.

`tune_runs` and `tune_trials` are a public format; what a Trial has beyond them stands in tables of
ours, so that the history that comes back is equal to what went in.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypedDict, cast

from autotuned.core.gate import bounded
from autotuned.core.model import (
    CUT_SHORT,
    Conditions,
    Failure,
    FailureKind,
    PhaseTimings,
    Replicate,
    ResourceUsage,
    Trial,
)
from autotuned.core.stats import median
from autotuned.documents.calibration import CalibrationDocument
from autotuned.documents.noise import MeasuredDocument, NoiseDocument
from autotuned.documents.result import (
    AppliedDocument,
    CheckedDocument,
    ConfirmationDocument,
    ErrorDocument,
    ResultDocument,
    SearchDocument,
)
from autotuned.documents.trial import KnobsDocument
from autotuned.shared.knobs import TABLE, Knobs, Value
from autotuned.store.database import transaction

_SAMPLE_FIELDS = tuple(
    field.name for field in dataclasses.fields(Replicate) if field.name != "remarks"
)
_LOAD_COLUMNS = ("itl_p50_ms", "itl_p95_ms", "calibrates", "confirms")
_SPENT_COLUMNS = tuple(f"spent_{field.name}" for field in dataclasses.fields(PhaseTimings))


@dataclass(frozen=True, slots=True)
class RunRow:
    """One row of `tune_runs`, column by column."""

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
    applied: AppliedDocument | None
    confirmed: Confirmed
    noise: NoiseDocument
    search: SearchDocument
    untried: list[KnobsDocument]
    document: ResultDocument
    """Of the first version's runs: the outcome as it was at their end."""


_RUN_COLUMNS = ", ".join(field.name for field in dataclasses.fields(RunRow))
_RUN_MARKS = ", ".join("?" for _ in dataclasses.fields(RunRow))


def begin(db: sqlite3.Connection, row: RunRow, details: Details) -> None:
    """Write a new run; until it is finished it reads `interrupted`, so that a crash needs no clean-up."""
    with transaction(db, durable=True):
        db.execute(
            f"INSERT INTO tune_runs({_RUN_COLUMNS}) VALUES ({_RUN_MARKS})", dataclasses.astuple(row)
        )
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
            (_json(said), run_id),
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
    with transaction(db, durable=True):
        db.execute(
            "UPDATE tune_runs SET exit_reason = ?, ended_at_utc = ?, recommendation_json = ?, recipe_hash = ? "
            "WHERE run_id = ?",
            (
                exit_reason,
                ended_at,
                None if recommendation is None else _json(recommendation),
                recipe_hash,
                run_id,
            ),
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
    db.execute("INSERT OR REPLACE INTO run_details VALUES (?, ?)", (run_id, _json(details)))


def run(db: sqlite3.Connection, run_id: str) -> RunRow | None:
    """One run, or None."""
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


def append_trial(
    db: sqlite3.Connection, run_id: str, trial: Trial, target_context: int, max_tokens: int
) -> int:
    """Write one ended trial with its samples; its id."""
    knobs = trial.knobs
    prompts = [
        replicate.prompt_tokens
        for replicate in trial.replicates
        if replicate.prompt_tokens is not None
    ]
    values = {
        "ts_utc": trial.ended_at,
        "run_id": run_id,
        "stage": trial.stage,
        "model": trial.model,
        "target_context": trial.context or target_context,
        "measured_prompt_tokens": round(median(prompts)) if prompts else None,
        "max_tokens": max_tokens,
        "agg_throughput_tps": trial.tps_median,
        "ttft_p95_ms": trial.ttft_p95_ms,
        "fits": int(trial.fits),
        "n_err": trial.n_err,
        "kept": int(trial.kept),
        "notes": _notes(trial),
        **({knob.column: None for knob in TABLE} if knobs is None else knobs.columns()),
        "replicates_n": trial.waves_n,
        "concurrency": trial.concurrency if trial.concurrency > 1 else None,
        "extra_knobs_json": _json(knobs.extra) if knobs and knobs.extra else None,
    }
    with transaction(db):
        columns, marks = ", ".join(values), ", ".join("?" for _ in values)
        cursor = db.execute(
            f"INSERT INTO tune_trials({columns}) VALUES ({marks})", tuple(values.values())
        )
        trial_id = cursor.lastrowid or 0
        failure, strain = trial.failure, trial.strain
        details = {
            "trial_id": trial_id,
            "rank": trial.rank,
            "failure_kind": failure and failure.kind.value,
            "failure_reason": failure and failure.reason,
            "load_ms": trial.load_ms,
            "peak_rss_bytes": strain.peak_rss_bytes,
            "worst_pressure": strain.worst_pressure,
            "nice": strain.nice,
            "priority": strain.priority,
            "started_at_utc": trial.started_at,
            "ended_at_utc": trial.ended_at,
            **{name: getattr(trial, name) for name in _LOAD_COLUMNS},
            "serve_argv_json": _json(trial.serve_argv) if trial.serve_argv else None,
            "conditions_json": _json(dataclasses.asdict(trial.conditions)),
            **dict(zip(_SPENT_COLUMNS, dataclasses.astuple(trial.spent), strict=True)),
        }
        columns, marks = ", ".join(details), ", ".join("?" for _ in details)
        db.execute(
            f"INSERT INTO trial_details({columns}) VALUES ({marks})", tuple(details.values())
        )
        names, marks = ", ".join(_SAMPLE_FIELDS), ", ".join("?" for _ in _SAMPLE_FIELDS)
        db.executemany(
            f"INSERT INTO samples(trial_id, idx, remarks_json, {names}) VALUES (?, ?, ?, {marks})",
            [
                (
                    trial_id,
                    index,
                    _json(list(sample.remarks)),
                    *(getattr(sample, name) for name in _SAMPLE_FIELDS),
                )
                for index, sample in enumerate(trial.replicates)
            ],
        )
    return trial_id


def history(db: sqlite3.Connection, run_id: str) -> tuple[Trial, ...]:
    """The trials of a run, oldest first, equal to those that were appended."""
    spent = ", ".join(f"d.{column}" for column in _SPENT_COLUMNS)
    knobs = ", ".join(f"t.{knob.column}" for knob in TABLE)
    load = ", ".join(f"d.{column}" for column in _LOAD_COLUMNS)
    rows = db.execute(
        f"SELECT {knobs}, t.extra_knobs_json, t.id, t.stage, t.model, t.agg_throughput_tps, t.ttft_p95_ms, "
        "t.kept, t.ts_utc, d.rank, d.failure_kind, d.failure_reason, d.load_ms, d.peak_rss_bytes, d.worst_pressure, "
        f"d.nice, d.priority, d.started_at_utc, t.fits, t.notes, t.concurrency, t.target_context, {load}, "
        f"d.serve_argv_json, d.conditions_json, {spent} "
        "FROM tune_trials t LEFT JOIN trial_details d ON d.trial_id = t.id "
        "WHERE t.run_id = ? ORDER BY t.id",
        (run_id,),
    ).fetchall()
    samples = _samples(db, run_id)
    return tuple(_trial(row, tuple(samples.get(row[len(TABLE) + 1], ()))) for row in rows)


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


def _notes(trial: Trial) -> str | None:
    if trial.failure is not None:
        return bounded(trial.failure.reason)
    remarks = sorted({remark for replicate in trial.replicates for remark in replicate.remarks})
    return bounded("; ".join(remarks)) or None


def _trial(row: Sequence[Any], samples: tuple[Replicate, ...]) -> Trial:
    knobs, extra, row = row[: len(TABLE)], row[len(TABLE)], row[len(TABLE) + 1 :]
    (_, stage, model, tps, ttft, kept, ts, rank, kind, reason, load_ms) = row[:11]
    (rss, pressure, nice, priority, started, fits, notes, concurrency, context) = row[11:20]
    (itl_p50, itl_p95, calibrates, confirms, argv, conditions) = row[20:26]
    whole = all(
        value is not None or knob.optional for knob, value in zip(TABLE, knobs, strict=True)
    )
    failure = Failure(FailureKind(kind), reason) if kind else None
    if rank is None and not fits:  # a prototype's row: its reason is only in the notes
        failure = Failure(FailureKind.GATE, notes or "")
    return Trial(
        stage=stage,
        model=model,
        rank=rank or 0,
        knobs=Knobs(*knobs)._replace(extra=_pairs(extra)) if whole else None,
        replicates=samples,
        failure=failure,
        tps_median=tps,
        ttft_p95_ms=ttft,
        load_ms=load_ms,
        kept=bool(kept),
        strain=ResourceUsage(rss, pressure or "normal", nice, priority),
        conditions=_conditions(conditions),
        spent=PhaseTimings(*row[26:]),
        started_at=started or ts,
        ended_at=ts,
        concurrency=concurrency or 1,
        itl_p50_ms=itl_p50,
        itl_p95_ms=itl_p95,
        calibrates=calibrates,
        context=context if calibrates else None,
        confirms=bool(confirms),
        serve_argv=tuple(json.loads(argv or "[]")),
    )


def _samples(db: sqlite3.Connection, run_id: str) -> Mapping[int, Sequence[Replicate]]:
    """The samples of a run's trials, by trial."""
    names = ", ".join(_SAMPLE_FIELDS)
    rows = db.execute(
        f"SELECT trial_id, remarks_json, {names} FROM samples "
        "WHERE trial_id IN (SELECT id FROM tune_trials WHERE run_id = ?) ORDER BY trial_id, idx",
        (run_id,),
    )
    found: dict[int, list[Replicate]] = {}
    for trial_id, remarks, *values in rows:
        fields = dict(zip(_SAMPLE_FIELDS, values, strict=True))
        for name in ("alive_after", "gate_missed"):
            fields[name] = bool(fields[name])
        found.setdefault(trial_id, []).append(
            Replicate(**fields, remarks=tuple(json.loads(remarks)))
        )
    return found


def _conditions(text: str | None) -> Conditions:
    fields = json.loads(text or "{}")
    return Conditions(**{**fields, "busiest": tuple(fields.get("busiest", ()))})


def _pairs(text: str | None) -> tuple[tuple[str, Value], ...]:
    return tuple((name, value) for name, value in json.loads(text or "[]"))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
